-- Calls that may be repeated: how they have ended, and who runs one.

local function drop(keys, place, filled)
    filled = filled - redis.call('HSTRLEN', keys[8], place)
    redis.call('HDEL', keys[7], place)
    redis.call('HDEL', keys[8], place)
    redis.call('ZREM', keys[9], place)
    redis.call('ZREM', keys[10], place)
    return filled
end

local function is_young(call, ms, kept)
    return tonumber(string.match(call, '^%d (%d+) ')) >= tonumber(ms) - tonumber(kept)
end

-- args: place, what, '1' if it is answered, the answer, and how many calls, bytes and milliseconds are kept.
local function remember(keys, args)
    local meta, calls, answers, order, answered = keys[2], keys[7], keys[8], keys[9], keys[10]
    local filled, ms, place = redis.call('HGET', meta, 'answers'), now(), args[1]
    if not filled then
        return redis.error_reply(MOVED)
    end
    filled = drop(keys, place, tonumber(filled))
    local number = redis.call('HINCRBY', meta, 'calls', 1)
    redis.call('HSET', calls, place, args[3] .. ' ' .. ms .. ' ' .. args[2])
    redis.call('ZADD', order, number, place)
    if args[3] == '1' then
        redis.call('HSET', answers, place, args[4])
        redis.call('ZADD', answered, number, place)
        filled = filled + #args[4]
    end
    while filled > tonumber(args[6]) do
        local oldest = redis.call('ZPOPMIN', answered)[1]
        filled = filled - redis.call('HSTRLEN', answers, oldest)
        redis.call('HDEL', answers, oldest)
    end
    for _, oldest in ipairs(redis.call('ZRANGE', order, 0, STEP - 1)) do
        if is_young(redis.call('HGET', calls, oldest), ms, args[7]) then
            break
        end
        filled = drop(keys, oldest, filled)
    end
    while redis.call('ZCARD', order) > tonumber(args[5]) do
        filled = drop(keys, redis.call('ZPOPMIN', order)[1], filled)
    end
    redis.call('HSET', meta, 'answers', filled)
    return ''
end

-- args: place, and how many milliseconds a call is kept. Returns '1' if it was answered, when, and what was called.
local function recall(keys, args)
    local call = redis.call('HGET', keys[7], args[1])
    return call and is_young(call, now(), args[2]) and call
end

local function told(keys, args)
    return redis.call('HGET', keys[8], args[1])
end

redis.register_function('hub_remember', remember)
redis.register_function({ function_name = 'hub_recall', callback = recall, flags = { 'no-writes' } })
redis.register_function({ function_name = 'hub_told', callback = told, flags = { 'no-writes' } })

-- ---- who runs a call that may be repeated

-- Keys: those of the stream, l as above, and t the turn at its place: the hub that has it, its connection, and what is
-- called. It is good for as long as that hub lives on that connection: one that was cut off, or cannot renew its lease
-- because the server takes nothing, has lost its turns.

local function holder(keys, turn)
    local hub, link, what = string.match(turn, '^(%S+) (%S+) (.*)$')
    if lives(keys[12], hub, link) then
        return hub .. ' ' .. link .. ' ', what
    end
end

-- What is kept of a call says that it may have run; its hub knows that it has not.
local function forget_unbegun(keys, place)
    local call, filled = redis.call('HGET', keys[7], place), redis.call('HGET', keys[2], 'answers')
    if call and filled and string.sub(call, 1, 1) == '0' then
        redis.call('HSET', keys[2], 'answers', drop(keys, place, tonumber(filled)))
    end
end

-- args: hub, its connection, place, what is called, '1' if it has not run when this hub had the turn last, and for how
-- many ms a turn is known: as long as what is kept of the call. Takes the turn and returns false; or returns what is
-- called by another hub that has it.
local function take(keys, args)
    local mine = args[1] .. ' ' .. args[2] .. ' '
    if holder(keys, mine) ~= mine then
        return redis.error_reply(MOVED)
    end
    local turn = redis.call('GET', keys[13])
    if turn then
        local who, what = holder(keys, turn)
        if who and who ~= mine then
            return what
        end
        if args[5] == '1' and string.match(turn, '^%S+') == args[1] then -- nobody else has had it since
            forget_unbegun(keys, args[3])
        end
    end
    redis.call('SET', keys[13], mine .. args[4], 'PX', args[6])
    return false
end

-- args: hub, its connection, then as hub_remember. Keeps that the call is about to run, if this hub has the turn.
local function begin(keys, args)
    local turn = redis.call('GET', keys[13])
    if not turn or holder(keys, turn) ~= args[1] .. ' ' .. args[2] .. ' ' then
        return redis.error_reply(MOVED)
    end
    return remember(keys, { unpack(args, 3) })
end

-- args: hub, its connection, place, '1' if it has not run. The turn is over.
local function leave(keys, args)
    local turn, mine = redis.call('GET', keys[13]), args[1] .. ' ' .. args[2] .. ' '
    if turn and string.sub(turn, 1, #mine) == mine then
        if args[4] == '1' then
            forget_unbegun(keys, args[3])
        end
        redis.call('DEL', keys[13])
    end
    return 1
end

redis.register_function('hub_take', take)
redis.register_function('hub_begin', begin)
redis.register_function('hub_leave', leave)
