-- What the hubs of a stream tell and ask each other.

-- ---- the hubs of this stream

-- Keys: l hub -> until when it lives (ms) and the name of its connection; '#' counts what changes · p name of a command
-- -> hub, its connection, and what is said of it. Whatever changes is told on the channel that is the first argument.

local function tell(keys, channel)
    redis.call('HINCRBY', keys[1], '#', 1)
    redis.call('PUBLISH', channel, '')
end

local function take_back(keys, is_gone)
    local rows, some = redis.call('HGETALL', keys[2]), false
    for at = 1, #rows, 2 do
        if is_gone(string.match(rows[at + 1], '^%S+')) then
            redis.call('HDEL', keys[2], rows[at])
            some = true
        end
    end
    return some
end

-- Hubs whose lease has ended go, with all that they provide.
local function bury(keys, channel)
    local at, gone, some = tonumber(now()), {}, false
    local rows = redis.call('HGETALL', keys[1])
    for place = 1, #rows, 2 do
        if rows[place] ~= '#' and (tonumber(string.match(rows[place + 1], '^%d+')) or 0) < at then
            redis.call('HDEL', keys[1], rows[place])
            gone[rows[place]], some = true, true
        end
    end
    if some then
        take_back(keys, function(hub)
            return gone[hub]
        end)
        tell(keys, channel)
    end
end

-- The hub that has a name, if it lives: what another program has written there is nobody's.
local function owner_of(keys, name)
    local owner = string.match(redis.call('HGET', keys[2], name) or '', '^%S+')
    return owner and redis.call('HEXISTS', keys[1], owner) == 1 and owner
end

local function live(keys, hub, link, ms)
    redis.call('HSET', keys[1], hub, string.format('%d %s', tonumber(now()) + ms, link))
end

-- args: channel, hub, its connection, ms, then name, what is said of it, …: all that it provides, and nothing else.
-- Returns the names that are another's by now.
local function join(keys, args)
    local channel, hub, link = args[1], args[2], args[3]
    bury(keys, channel)
    live(keys, hub, link, tonumber(args[4]))
    take_back(keys, function(owner)
        return owner == hub
    end)
    local taken = {}
    for at = 5, #args, 2 do
        if owner_of(keys, args[at]) then
            taken[#taken + 1] = args[at]
        else
            redis.call('HSET', keys[2], args[at], hub .. ' ' .. link .. ' ' .. args[at + 1])
        end
    end
    tell(keys, channel)
    return taken
end

-- args: channel, hub, its connection, ms, what it knows of. Returns '' if the lease has ended; else the number of what
-- it knows of then, hub, connection, …; and name, hub, connection and description, … if that is news.
local function renew(keys, args)
    local channel, hub, link = args[1], args[2], args[3]
    bury(keys, channel)
    local mine = redis.call('HGET', keys[1], hub)
    if not mine or string.match(mine, ' (%w+)$') ~= link then
        return { '' }
    end
    live(keys, hub, link, tonumber(args[4]))
    local number, hubs = redis.call('HGET', keys[1], '#') or '0', {}
    for _, word in ipairs(redis.call('HGETALL', keys[1])) do
        hubs[#hubs + 1] = word
    end
    if number == args[5] then
        return { number, hubs }
    end
    return { number, hubs, redis.call('HGETALL', keys[2]) }
end

-- args: channel, hub, its connection, name, what is said of it, …: all of them or none. Returns the first name that is
-- another hub's, and what that says of it.
local function claim(keys, args)
    local channel, hub, link = args[1], args[2], args[3]
    bury(keys, channel)
    local mine = redis.call('HGET', keys[1], hub)
    if not mine or string.match(mine, ' (%w+)$') ~= link then
        return redis.error_reply(MOVED)
    end
    for at = 4, #args, 2 do
        local owner = owner_of(keys, args[at])
        if owner and owner ~= hub then
            return { args[at], redis.call('HGET', keys[2], args[at]) }
        end
    end
    for at = 4, #args, 2 do
        redis.call('HSET', keys[2], args[at], hub .. ' ' .. link .. ' ' .. args[at + 1])
    end
    tell(keys, channel)
    return {}
end

-- args: channel, hub, name, …
local function release(keys, args)
    for at = 3, #args do
        local found = redis.call('HGET', keys[2], args[at])
        if found and string.match(found, '^%S+') == args[2] then
            redis.call('HDEL', keys[2], args[at])
        end
    end
    tell(keys, args[1])
    return 1
end

-- args: channel, hub. It stops.
local function part(keys, args)
    redis.call('HDEL', keys[1], args[2])
    take_back(keys, function(owner)
        return owner == args[2]
    end)
    tell(keys, args[1])
    return 1
end

redis.register_function('hub_join', join)
redis.register_function('hub_renew', renew)
redis.register_function('hub_claim', claim)
redis.register_function('hub_release', release)
redis.register_function('hub_part', part)

-- ---- questions of all hubs

-- Keys: l as above · o question -> hub of who asks, when it was asked, deadline (ms), the question · q question and when
-- it was asked -> hub that ends it ('-' once all is done), ms, the end · w of one question: hub -> its connection, where
-- somebody waits for its end: true for as long as the hub lives on that connection.

local MANY = 4096 -- questions and ends that are remembered before the old ones go
local OLD = 3600000 -- milliseconds behind their end from which they may

local function is_alive(keys, hub)
    local lease = redis.call('HGET', keys[1], hub)
    return lease and tonumber(string.match(lease, '^%d+')) >= tonumber(now())
end

local function lives(leases, hub, link)
    local till, on = string.match(redis.call('HGET', leases, hub) or '', '^(%d+) (%S+)$')
    return till and tonumber(till) >= tonumber(now()) and on == link
end

-- Whether somebody waits for the end of the question on another hub.
local function is_awaited(keys, hub)
    local rows = redis.call('HGETALL', keys[4])
    for at = 1, #rows, 2 do
        if rows[at] ~= hub and lives(keys[1], rows[at], rows[at + 1]) then
            return true
        end
    end
    return false
end

local function clear(key, pattern, at)
    if redis.call('HLEN', key) > MANY then
        local rows = redis.call('HGETALL', key)
        for place = 1, #rows, 2 do
            if tonumber(string.match(rows[place + 1], pattern)) < at - OLD then
                redis.call('HDEL', key, rows[place])
            end
        end
    end
end

-- args: hub, question, when it was asked, ms that it waits, its text, when one was asked that is known to be over.
-- Returns the text of the one that is asked: this, or an earlier one of the same name.
local function ask(keys, args)
    local hub, id, at = args[1], args[2], tonumber(now())
    local found = redis.call('HGET', keys[2], id)
    if found then
        local asked, deadline, text = string.match(found, '^%S+ (%S+) (%d+) (.*)$')
        if asked ~= args[6] then
            redis.call('HSET', keys[2], id, hub .. ' ' .. asked .. ' ' .. deadline .. ' ' .. text)
            return text
        end
    end
    clear(keys[2], '^%S+ %S+ (%d+)', at)
    local deadline = string.format('%d', at + tonumber(args[4]))
    redis.call('HSET', keys[2], id, hub .. ' ' .. args[3] .. ' ' .. deadline .. ' ' .. args[5])
    return args[5]
end

-- args: hub, question. Returns 1 if somebody has asked it.
local function asked(keys, args)
    return redis.call('HEXISTS', keys[2], args[2])
end

-- args: hub, question, when it was asked, how it ends, its deadline (ms) as the question says, the end. The first end is
-- the end, and whose hub dies before it is published leaves it to the next that asks. Returns 'mine' · 'take' and the
-- end that is to be published in its place · 'wait' and for how many ms · 'late' · 'awaited' if it cannot be withdrawn,
-- because somebody waits for it on another hub.
local function settle(keys, args)
    local hub, id, asked, how, at = args[1], args[2], args[3], args[4], tonumber(now())
    local place, owner, deadline = id .. ' ' .. asked, nil, tonumber(args[5])
    local ended = redis.call('HGET', keys[3], place)
    if ended then
        local by, rest = string.match(ended, '^(%S+) %d+ (.*)$')
        if by == '-' and how == 'record' then -- the stream has lost it
            return { 'mine' }
        elseif by == '-' then
            return { 'late' }
        elseif by ~= hub and is_alive(keys, by) then
            return { 'wait', 1000 }
        end
        redis.call('HSET', keys[3], place, hub .. ' ' .. string.format('%d', at) .. ' ' .. rest)
        return { 'take', rest }
    end
    local open = redis.call('HGET', keys[2], id)
    if open then
        local who, when, till = string.match(open, '^(%S+) (%S+) (%d+)')
        if when == asked then
            owner, deadline = who, tonumber(till)
        end
    end
    if how == 'timed_out' and at < deadline then
        return { 'wait', deadline - at }
    elseif how == 'answered' and at >= deadline then
        return { 'late' }
    elseif how == 'orphan' and owner and owner ~= hub and is_alive(keys, owner) then
        return { 'wait', deadline - at }
    elseif how == 'withdrawn' and is_awaited(keys, hub) then
        return { 'awaited' }
    end
    clear(keys[3], '^%S+ (%d+)', at)
    redis.call('HSET', keys[3], place, hub .. ' ' .. string.format('%d', at) .. ' ' .. args[6])
    return { 'mine' }
end

-- args: hub, question, when it was asked. It could not be recorded: the question is open as before.
local function unsettle(keys, args)
    local place = args[2] .. ' ' .. args[3]
    local ended = redis.call('HGET', keys[3], place)
    if ended and string.match(ended, '^%S+') == args[1] then
        redis.call('HDEL', keys[3], place)
    end
    return 1
end

-- args: hub, question, when it was asked. Its end is published.
local function over(keys, args)
    local open = redis.call('HGET', keys[2], args[2])
    if open and string.match(open, '^%S+ (%S+)') == args[3] then
        redis.call('HDEL', keys[2], args[2])
    end
    redis.call('HSET', keys[3], args[2] .. ' ' .. args[3], '- ' .. now() .. ' ')
    return 1
end

-- Keys: w. args: hub, its connection, ms for which it may be true at most. Somebody waits there.
local function await(keys, args)
    redis.call('HSET', keys[1], args[1], args[2])
    return redis.call('PEXPIRE', keys[1], args[3])
end

-- Keys: w. args: hub. Nobody waits there any more.
local function unawait(keys, args)
    return redis.call('HDEL', keys[1], args[1])
end

redis.register_function('hub_ask', ask)
redis.register_function('hub_await', await)
redis.register_function('hub_unawait', unawait)
redis.register_function({ function_name = 'hub_asked', callback = asked, flags = { 'no-writes' } })
redis.register_function('hub_settle', settle)
redis.register_function('hub_unsettle', unsettle)
redis.register_function('hub_over', over)

-- ---- confirmations

-- Keys: of the value that came with a call, and of a fresh one. args: what stands for the call, ms. Returns 1 and uses
-- the value up, if it was handed out for this call; else 0, and hands out the fresh one.
local function confirm(keys, args)
    if redis.call('GET', keys[1]) == args[1] then
        redis.call('DEL', keys[1])
        return 1
    end
    redis.call('SET', keys[2], args[1], 'PX', args[2])
    return 0
end

redis.register_function('hub_confirm', confirm)
