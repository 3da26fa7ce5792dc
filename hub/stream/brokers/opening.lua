-- How a hub begins with a stream: whether it is the one that it knows.

-- ---- epochs

-- What one hub has seen of this epoch: args from `at` on are numbers, and when each was accepted, the newest first; the
-- first is its position. Returns the last number that is still the same to it, and whether the epoch has to end.
--
-- Under another run of the server nobody has appended yet, so all that is left is the same. Under the same run the stream
-- was put back, and others may have gone on from there: then only what it has seen in its place is.
local function judge(keys, found, run, mine, args, at)
    local last, ends = found.seq, found.run ~= run
    if mine ~= found.epoch then
        return last, ends or mine ~= '' and not is_earlier(found, mine)
    end
    for place = at, #args, 2 do
        local seq, other = tonumber(args[place]), nil
        if seq > found.seq then
            ends, other = true, found.run == run or nil
        else
            other = is_other(keys, seq, args[place + 1])
        end
        if other then
            last, ends = nil, true
        elseif other == false then
            last = last or seq
        end
    end
    return last or 0, ends
end

-- args: nothing, or the server's run, the epoch of who asks, and what it has seen, as in `judge`. Returns what the stream
-- says, the time, and whether it must be opened.
local function look_at(keys, args)
    local row, found = look(keys), facts(keys)
    if args[1] then
        local ends = true
        if found then
            ends = select(2, judge(keys, found, args[1], args[2], args, 3))
        end
        row[#row + 1] = ends and '1' or ''
    end
    return row
end

-- Begin another epoch: in the one before all is the same up to `last`, and in `mine` nothing, if nobody knows that.
local function begin(keys, found, run, fresh, last, mine)
    local lineage = {}
    for _, pair in ipairs(earlier(found)) do
        lineage[#lineage + 1] = pair[1] .. ' ' .. string.format('%d', math.min(pair[2], last))
    end
    if mine ~= '' and mine ~= found.epoch and not is_earlier(found, mine) then
        lineage[#lineage + 1] = mine .. ' 0'
    end
    if found.epoch ~= '' then
        lineage[#lineage + 1] = found.epoch .. ' ' .. string.format('%d', last)
    end
    lineage = table.concat(lineage, ' ', math.max(1, #lineage - EARLIER + 1))
    redis.call('HSET', keys[2], 'epoch', fresh, 'run', run, 'lineage', lineage)
end

-- What m has said is gone: what the entries say, under these limits. Where there are none, it is a new stream.
local function restore(keys, limits)
    local found = { epoch = '', lineage = '', seq = CLOCK, foreign = 0, filled = 0 }
    if redis.call('EXISTS', keys[1]) == 0 then
        redis.call('DEL', unpack(keys))
        found.seq, found.tail, found.bytes, found.holes, found.known = 0, 1, 0, 0, 0
    else
        local epochs = count(keys, found)
        local last = table.remove(epochs)
        found.epoch = last and last[1] or ''
        for place, pair in ipairs(epochs) do
            epochs[place] = pair[1] .. ' ' .. string.format('%d', pair[2])
        end
        found.lineage = table.concat(epochs, ' ')
    end
    local names = { 'events', 'size', 'seconds', 'items', 'room' }
    for place, name in ipairs(names) do
        redis.call('HSET', keys[2], name, limits[place])
    end
    for _, place in ipairs(redis.call('ZRANGE', keys[6], '0', '-1')) do
        found.filled = found.filled + redis.call('HSTRLEN', keys[4], place)
    end
    local answers = 0
    for _, place in ipairs(redis.call('ZRANGE', keys[10], '0', '-1')) do
        answers = answers + redis.call('HSTRLEN', keys[8], place)
    end
    local newest = redis.call('ZRANGE', keys[9], '-1', '-1', 'WITHSCORES')[2]
    redis.call('HSET', keys[2], 'answers', answers, 'calls', newest or 0)
    return found
end

-- args: the server's run, an epoch to begin with, the limits of a new stream, then the epoch of who asks, and what it has
-- seen, as in `judge`. Returns as hub_look.
local function open(keys, args)
    local run, fresh, mine, found = args[1], args[2], args[8], facts(keys)
    local last, ends
    if found then
        mend(keys, found)
        last, ends = judge(keys, found, run, mine, args, 9)
    else
        found = restore(keys, { unpack(args, 3, 7) })
        last, ends = found.seq, true
        if mine == found.epoch then
            found.run = '' -- another, as far as anybody knows
            last = judge(keys, found, run, mine, args, 9)
        end
    end
    save(keys, found)
    if ends then
        begin(keys, found, run, fresh, last, mine)
    end
    return look(keys)
end

-- ---- the server

-- args: of which kind each key but the first must be, if it is there. Says which is another program's; and whether the
-- server lets this user do all that the others do: one that was refused in its middle would leave half of its work. On a
-- key of its own, the first, which is gone behind it.
local function try(keys, args)
    local key = keys[1]
    for place, expected in ipairs(args) do
        local kind = redis.call('TYPE', keys[place + 1]).ok
        if kind ~= 'none' and kind ~= expected then
            return redis.error_reply('FOREIGN ' .. keys[place + 1])
        end
    end
    for _, words in ipairs({
        { 'DEL', key }, -- of one that was stopped in its middle
        { 'XADD', key, '1-0', 'd', '' },
        { 'XRANGE', key, '-', '+' },
        { 'XLEN', key },
        { 'XINFO', 'STREAM', key },
        { 'XTRIM', key, 'MINID', '2-0' },
        { 'XDEL', key, '1-0' },
        { 'XSETID', key, '1-0' },
        { 'EXISTS', key },
        { 'DEL', key },
        { 'HSET', key, 'a', '1' },
        { 'HSETNX', key, 'a', '1' },
        { 'HINCRBY', key, 'a', 1 },
        { 'HGET', key, 'a' },
        { 'HMGET', key, 'a' },
        { 'HLEN', key },
        { 'HSTRLEN', key, 'a' },
        { 'HDEL', key, 'a' },
        { 'ZADD', key, 1, 'a' },
        { 'ZSCORE', key, 'a' },
        { 'ZCARD', key },
        { 'ZRANGE', key, '0', '-1' },
        { 'ZREM', key, 'b' },
        { 'ZPOPMIN', key },
        { 'SET', key, 'a', 'PX', '1000' },
        { 'PEXPIRE', key, '1000' },
        { 'GET', key },
        { 'DEL', key },
        { 'TIME' },
    }) do
        redis.call(unpack(words))
    end
    return ''
end

redis.register_function('hub_try', try)
redis.register_function({ function_name = 'hub_open', callback = open, flags = { 'allow-oom' } })
redis.register_function({ function_name = 'hub_look', callback = look_at, flags = { 'no-writes' } })
