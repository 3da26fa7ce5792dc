#!lua name=hub

-- What the hubs run inside of Redis or Valkey. A function is one step for everybody: nothing comes between what it
-- reads and what it writes. An error in its middle would not be rolled back, so each checks everything, then writes.
--
-- The keys, all with one hash tag: e the stream (entry <seq>-0, field d) · m what it says of itself · i id -> seq ·
-- v place -> seq and entry of its last value · x place -> seq of the hub:stale that has ended it · z places by the seq
-- of their last change · a, b, c, d calls that may be repeated: what was called, answers, places by time, those with
-- an answer.
--
-- An entry is "<ms> <epoch> <weight> <length> <length> <id><head><data>": when it was accepted, in the server's time; the
-- bytes of its envelope without the cursor; the id by which it is recognised, and what else there is of it, each of so
-- many bytes. The head begins with the event's name, in a line of its own.
-- Lua writes numbers from 1e14 on as 1e+14, so times are texts here.

local EARLIER = 32 -- epochs that are remembered
local YOUNG = 1000 -- milliseconds in which every hub has read an entry: a younger one goes only if there are far too many
local STEP = 256 -- entries that are read at once; what is over a limit by less may wait
local HEAD = '^(%d+) (%w+) (%d+) (%d+) %d+ ()'
local MOVED = 'EPOCH the stream is of another epoch now'

local function now()
    local time = redis.call('TIME')
    return string.format('%d%03d', time[1], math.floor(time[2] / 1000))
end

-- The bytes of an event as it is sent, which is what the limits count.
local function size(weight, epoch, seq)
    local text = weight + #epoch + 1 + #string.format('%d', seq)
    return text + (text < 126 and 2 or text < 65536 and 4 or 10)
end

local function opened(entry)
    local ms, epoch, weight, length, from = string.match(entry, HEAD)
    return ms, epoch, tonumber(weight), string.sub(entry, from, from + length - 1), from + length
end

local function seq_of(row)
    return tonumber(string.match(row[1], '^%d+'))
end

-- ---- what goes

-- Take the oldest entries away until `enough(ms, over, bytes)`, at most so many; the new tail and bytes.
local function forget(keys, tail, seq, bytes, most, enough)
    local stream, ids = keys[1], keys[3]
    local first, over, done = tail, false, false
    while not done and tail <= seq and most > 0 do
        local rows = redis.call('XRANGE', stream, '-', '+', 'COUNT', math.min(STEP, most))
        local known = {}
        if #rows == 0 then
            tail, bytes = seq + 1, 0
        end
        for _, row in ipairs(rows) do
            local ms, epoch, weight, id = opened(row[2][2])
            if enough(ms, tail, bytes) then
                done = true
                break
            end
            local number = seq_of(row)
            tail, bytes, most = number + 1, bytes - size(weight, epoch, number), most - 1
            if id ~= '' then
                known[#known + 1] = id
            end
        end
        if #known > 0 then
            redis.call('HDEL', ids, unpack(known))
        end
        if #rows > 0 then
            redis.call('XTRIM', stream, 'MINID', string.format('%d-0', tail))
        end
    end
    return tail, bytes, done
end

local function cap(keys, meta, items, room, filled)
    local values, ends, places = keys[4], keys[5], keys[6]
    while redis.call('ZCARD', places) > items or filled > room do
        local oldest = redis.call('ZPOPMIN', places)[1]
        if not oldest then
            break
        end
        filled = filled - redis.call('HSTRLEN', values, oldest)
        redis.call('HDEL', values, oldest)
        redis.call('HDEL', ends, oldest)
    end
    return filled
end

-- ---- events

-- args: epoch, then for each draft: the end of its entry, from its weight on; and what it does to a last value: nothing,
-- 'k<place>' for its own, 's<seq> <place>' for the lease of that event. Returns the last seq before, and then for each
-- draft whose id is known already its place in the call and the seq of the first one.
local function append(keys, args)
    local stream, meta, ids, values, ends, places = unpack(keys)
    local found = redis.call('HMGET', meta, 'epoch', 'seq', 'tail', 'bytes', 'events', 'size', 'items', 'room', 'filled')
    if found[1] ~= args[1] then
        return redis.error_reply(MOVED)
    end
    local epoch, ms = found[1], now()
    local seq, tail, bytes = tonumber(found[2]), tonumber(found[3]), tonumber(found[4])
    local filled, room, keyed = tonumber(found[9]), tonumber(found[8]), false
    local weights, names = {}, {}
    for at = 2, #args, 2 do
        local weight, length, from = string.match(args[at], '^(%d+) (%d+) %d+ ()')
        weights[at], names[at] = tonumber(weight), string.sub(args[at], from, from + length - 1)
    end
    local reply = { seq }
    for at = 2, #args, 2 do
        local id, place = names[at], args[at + 1]
        local first = id ~= '' and redis.call('HGET', ids, id)
        if first then
            reply[#reply + 1] = at / 2 - 1
            reply[#reply + 1] = tonumber(first)
        else
            seq = seq + 1
            local entry = ms .. ' ' .. epoch .. ' ' .. args[at]
            redis.call('XADD', stream, string.format('%d-0', seq), 'd', entry)
            bytes = bytes + size(weights[at], epoch, seq)
            if id ~= '' then
                redis.call('HSET', ids, id, seq)
            end
            local does = string.byte(place)
            if does == 107 then -- k
                place, keyed = string.sub(place, 2), true
                local value = string.format('%d ', seq) .. entry
                filled = filled - redis.call('HSTRLEN', values, place)
                redis.call('HDEL', ends, place)
                if #value <= room then
                    filled = filled + #value
                    redis.call('HSET', values, place, value)
                    redis.call('ZADD', places, seq, place)
                else -- it would push all others out, and could not stay itself
                    redis.call('HDEL', values, place)
                    redis.call('ZREM', places, place)
                end
            elseif does == 115 then -- s
                local ended, at = string.match(place, '^s(%d+) ()')
                place = string.sub(place, at)
                local changed = redis.call('ZSCORE', places, place)
                if changed and tonumber(changed) == tonumber(ended) then
                    redis.call('HSET', ends, place, seq)
                    redis.call('ZADD', places, seq, place)
                end
            end
        end
    end
    if seq > reply[1] then
        local most, weight = tonumber(found[5]), tonumber(found[6])
        if keyed then
            filled = cap(keys, meta, tonumber(found[7]), room, filled)
        end
        local slack = math.min(STEP, math.floor(most / 100))
        if seq - tail + 1 > most + slack or bytes > weight * 1.01 then
            local young = tonumber(ms) - YOUNG
            tail, bytes = forget(keys, tail, seq, bytes, seq - reply[1] + 4 * STEP, function(at, oldest, left)
                local count = seq - oldest + 1
                return count <= most and left <= weight
                    or oldest > reply[1]
                    or tonumber(at) > young and count <= 2 * most + 4 * STEP and left <= 2 * weight + 1048576
            end)
        end
        redis.call('HSET', meta, 'seq', seq, 'tail', tail, 'bytes', bytes, 'filled', filled)
    end
    return reply
end

local FACTS = { 'epoch', 'seq', 'tail', 'bytes', 'events', 'size', 'seconds', 'items', 'room', 'lineage', 'run' }

local function look(keys)
    local facts = redis.call('HMGET', keys[2], unpack(FACTS))
    facts[#FACTS + 1] = now()
    return facts
end

-- Whether the server lets this user do all that the others do: one that was refused in its middle would leave half of
-- its work. On a key of its own, which is gone behind it.
local function try(keys)
    local key = keys[1]
    for _, words in ipairs({
        { 'DEL', key }, -- of one that was stopped in its middle
        { 'XADD', key, '1-0', 'd', '' },
        { 'XRANGE', key, '-', '+' },
        { 'XTRIM', key, 'MINID', '2-0' },
        { 'DEL', key },
        { 'HSET', key, 'a', '1' },
        { 'HINCRBY', key, 'a', 1 },
        { 'HGET', key, 'a' },
        { 'HMGET', key, 'a' },
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

-- args: epoch. What is over the limits, or too old, goes, some of it; as hub_look, and whether there may be more.
local function tidy(keys, args)
    local found = look(keys)
    if found[1] ~= args[1] then
        return redis.error_reply(MOVED)
    end
    local seq, tail, bytes = tonumber(found[2]), tonumber(found[3]), tonumber(found[4])
    local most, weight = tonumber(found[5]), tonumber(found[6])
    local oldest = tonumber(found[12]) - 1000 * tonumber(found[7])
    local young = tonumber(found[12]) - YOUNG
    local left, rest, done = forget(keys, tail, seq, bytes, 4 * STEP, function(ms, first, filled)
        return seq - first + 1 <= most and filled <= weight and tonumber(ms) >= oldest or tonumber(ms) > young
    end)
    redis.call('HSET', keys[2], 'tail', left, 'bytes', rest)
    found[3], found[4] = string.format('%d', left), string.format('%d', rest)
    found[13] = (done or left > seq) and '' or '1'
    return found
end

-- args: the server's run, an epoch to begin with, the epoch and the position of who asks, the limits of a new stream.
-- Returns as hub_look.
local function open(keys, args)
    local meta = keys[2]
    local run, fresh, mine, position = args[1], args[2], args[3], tonumber(args[4])
    local found = redis.call('HMGET', meta, 'epoch', 'seq', 'run', 'lineage')
    if not found[1] then
        redis.call('DEL', unpack(keys))
        redis.call('HSET', meta, 'epoch', fresh, 'seq', 0, 'tail', 1, 'bytes', 0, 'filled', 0, 'lineage', '', 'run', run)
        redis.call('HSET', meta, 'events', args[5], 'size', args[6], 'seconds', args[7], 'items', args[8], 'room', args[9])
        redis.call('HSET', meta, 'answers', 0)
    elseif found[3] ~= run or (found[1] == mine and position > tonumber(found[2])) then
        -- Events that somebody has seen may be gone; up to here none are.
        local last, lineage = tonumber(found[2]), {}
        for epoch, number in string.gmatch(found[4], '(%w+) (%d+)') do
            lineage[#lineage + 1] = epoch .. ' ' .. string.format('%d', math.min(tonumber(number), last))
        end
        lineage[#lineage + 1] = found[1] .. ' ' .. found[2]
        lineage = table.concat(lineage, ' ', math.max(1, #lineage - EARLIER + 1))
        redis.call('HSET', meta, 'epoch', fresh, 'run', run, 'lineage', lineage)
    end
    return look(keys)
end

-- args: after, until (or ''), limit, bytes (or ''). Returns "<seq> <length> <seq> <length> …", and the entries, one behind
-- the other: two texts are faster taken apart by a client than two for each entry.
local function read(keys, args)
    local after, last, limit = tonumber(args[1]), tonumber(args[2]) or 2 ^ 53, tonumber(args[3])
    local most, lengths, entries, filled, step = tonumber(args[4]) or math.huge, {}, {}, 0, 16
    while limit > 0 and after < last and filled < most do
        local from, to = string.format('%d-0', after + 1), string.format('%d-0', last)
        local rows = redis.call('XRANGE', keys[1], from, to, 'COUNT', math.min(step, limit))
        if #rows == 0 then
            break
        end
        for _, row in ipairs(rows) do
            local _, epoch, weight = opened(row[2][2])
            after, limit = seq_of(row), limit - 1
            entries[#entries + 1] = row[2][2]
            lengths[#lengths + 1] = string.format('%d %d', after, #row[2][2])
            filled = filled + size(weight, epoch, after)
            if filled >= most then
                break
            end
        end
        step = math.min(4 * step, STEP)
    end
    return { table.concat(lengths, ' '), table.concat(entries) }
end

-- args: after, until, limit. Returns seq, name, seq, name, …, and no more once a MiB was looked through.
local function names(keys, args)
    local after, last, limit = tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
    local reply, seen = {}, 0
    while limit > 0 and after < last and seen < 1048576 do
        local from, to = string.format('%d-0', after + 1), string.format('%d-0', last)
        local rows = redis.call('XRANGE', keys[1], from, to, 'COUNT', math.min(STEP, limit))
        if #rows == 0 then
            break
        end
        for _, row in ipairs(rows) do
            local entry = row[2][2]
            local _, _, _, _, from = opened(entry)
            after, limit, seen = seq_of(row), limit - 1, seen + #entry
            reply[#reply + 1] = after
            reply[#reply + 1] = string.match(entry, '^[^\n]*', from)
        end
    end
    return reply
end

-- args: after, count. The last values that changed behind this seq, longest unchanged first: value, seq of its hub:stale
-- or '', …; no more once they fill a MiB, and one at least if there is one.
local function values(keys, args)
    local reply, filled = {}, 0
    local after, count = '(' .. args[1], args[2]
    for _, place in ipairs(redis.call('ZRANGE', keys[6], after, '+inf', 'BYSCORE', 'LIMIT', 0, count)) do
        local value = redis.call('HGET', keys[4], place)
        filled = filled + #value
        if filled > 1048576 and #reply > 0 then
            break
        end
        reply[#reply + 1] = value
        reply[#reply + 1] = redis.call('HGET', keys[5], place) or ''
    end
    return reply
end

-- ---- calls that may be repeated

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

redis.register_function('hub_append', append)
redis.register_function('hub_remember', remember)
redis.register_function('hub_tidy', tidy)
redis.register_function('hub_try', try)
redis.register_function({ function_name = 'hub_open', callback = open, flags = { 'allow-oom' } })
redis.register_function({ function_name = 'hub_look', callback = look, flags = { 'no-writes' } })
redis.register_function({ function_name = 'hub_read', callback = read, flags = { 'no-writes' } })
redis.register_function({ function_name = 'hub_names', callback = names, flags = { 'no-writes' } })
redis.register_function({ function_name = 'hub_recall', callback = recall, flags = { 'no-writes' } })
redis.register_function({ function_name = 'hub_told', callback = told, flags = { 'no-writes' } })
redis.register_function({ function_name = 'hub_values', callback = values, flags = { 'no-writes' } })
