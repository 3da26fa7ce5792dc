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
        if is_gone(string.match(rows[at + 1], '^%w+')) then
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
        if rows[place] ~= '#' and tonumber(string.match(rows[place + 1], '^%d+')) < at then
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
        if redis.call('HSETNX', keys[2], args[at], hub .. ' ' .. link .. ' ' .. args[at + 1]) == 0 then
            taken[#taken + 1] = args[at]
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
        local found = redis.call('HGET', keys[2], args[at])
        if found and string.match(found, '^%w+') ~= hub then
            return { args[at], found }
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
        if found and string.match(found, '^%w+') == args[2] then
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
-- it was asked -> hub that ends it ('-' once all is done), ms, the end.

local MANY = 4096 -- questions and ends that are remembered before the old ones go

local function is_alive(keys, hub)
    local lease = redis.call('HGET', keys[1], hub)
    return lease and tonumber(string.match(lease, '^%d+')) >= tonumber(now())
end

local function clear(key, pattern, at)
    if redis.call('HLEN', key) > MANY then
        local rows = redis.call('HGETALL', key)
        for place = 1, #rows, 2 do
            if tonumber(string.match(rows[place + 1], pattern)) < at - 1000 * HOUR then
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
-- end that is to be published in its place · 'wait' and for how many ms · 'late'.
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

redis.register_function('hub_ask', ask)
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
