#!lua name=hub

-- What the hubs run inside of Redis or Valkey: this file, and behind it the others of `link.LIBRARY`. A function is one
-- step for everybody: nothing comes between what it reads and what it writes. An error in its middle would not be rolled
-- back, so each checks everything, then writes.
--
-- The keys, all with one hash tag: e the stream (entry <seq>-0, field d) · m what it says of itself · i id -> seq ·
-- v place -> seq and entry of its last value · x place -> seq of the hub:stale that has ended it · z places by the seq
-- of their last change · a, b, c, d calls that may be repeated: what was called, answers, places by time, those with
-- an answer · r where the stream is for a moment when it is made anew.
--
-- An entry is "<ms> <epoch> <weight> <length> <length> <id><head><data>": when it was accepted, in the server's time; the
-- bytes of its envelope without the cursor; the id by which it is recognised, and what else there is of it, each of so
-- many bytes. The head begins with the event's name, in a line of its own.
-- Lua writes numbers from 1e14 on as 1e+14, so times are texts here.
--
-- Whoever else can write to these keys may have: entries that are none, entries that are gone, keys that are gone, or
-- were put back from a copy. What no hub has written is no event, and goes; what is missing is counted as missing; what
-- m has said can be counted anew.

local EARLIER = 32 -- epochs that are remembered
local YOUNG = 1000 -- milliseconds in which every hub has read an entry: a younger one goes only if there are far too many
local STEP = 256 -- entries that are read at once; what is over a limit by less may wait
local CLOCK = 1e12 -- no number of an event: XADD with * takes the time for one
local HEAD = '^(%d+) (%w+) (%d+) (%d+) (%d+) ()'
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

-- What an entry says: when, epoch, weight, id, and where its head begins; nothing if no hub has written it.
local function opened(entry)
    local ms, epoch, weight, length, more, from = string.match(entry, HEAD)
    if ms and from + length + more <= #entry + 1 then
        return ms, epoch, tonumber(weight), string.sub(entry, from, from + length - 1), from + length
    end
end

-- The number of a row of the stream, and what it says, which is nothing for one that no hub has written.
local function taken(row)
    local seq = tonumber(string.match(row[1], '^%d+'))
    if row[2][1] == 'd' and string.sub(row[1], -2) == '-0' then
        return seq, opened(row[2][2])
    end
    return seq
end

local function id_of(seq)
    return string.format('%d-0', seq)
end

-- ---- what the stream says of itself

-- `foreign`: how many entries were none · `holes`: numbers from the tail on that are missing · `known`: ids in i ·
-- `filled`: bytes of last values. A hub is told of the first twelve.
local FACTS = {
    'epoch', 'seq', 'tail', 'bytes', 'events', 'size', 'seconds', 'items', 'room', 'lineage', 'run', 'foreign',
    'holes', 'known', 'filled',
}
local TOLD = 12
local TEXTS = { epoch = true, lineage = true, run = true, seconds = true }
local UNCOUNTED = { foreign = '0', holes = '-1', known = '-1' } -- an older library has not

-- By name; nil if the key has gone, or does not say all of it any more.
local function facts(keys)
    local row, found = redis.call('HMGET', keys[2], unpack(FACTS)), {}
    for place, name in ipairs(FACTS) do
        local value = row[place] or UNCOUNTED[name]
        if not TEXTS[name] then
            value = tonumber(value)
        end
        if not value then
            return nil
        end
        found[name] = value
    end
    local is_whole = tonumber(found.seconds)
        and string.find(found.epoch, '^%w+$')
        and #found.epoch <= 64 -- as in a cursor
        and string.gsub(found.lineage .. ' ', '%w+ %d+ ', '') == (found.lineage == '' and ' ' or '')
        and found.tail >= 1
        and found.tail <= found.seq + 1
        and found.seq < CLOCK
    return is_whole and found or nil
end

local COUNTED = { 'seq', 'tail', 'bytes', 'filled', 'foreign', 'holes', 'known' }

local function save(keys, found)
    local words = {}
    for _, name in ipairs(COUNTED) do
        words[#words + 1] = name
        words[#words + 1] = string.format('%d', found[name])
    end
    redis.call('HSET', keys[2], unpack(words))
end

local function earlier(found)
    local lineage = {}
    for epoch, number in string.gmatch(found.lineage, '(%w+) (%d+)') do
        lineage[#lineage + 1] = { epoch, tonumber(number) }
    end
    return lineage
end

local function is_earlier(found, epoch)
    for _, pair in ipairs(earlier(found)) do
        if pair[1] == epoch then
            return true
        end
    end
    return false
end

-- What a hub is told: the facts, and what the time is; of a stream that is not there, or does not say, nothing.
local function look(keys)
    local found, row = facts(keys), {}
    for place = 1, TOLD do
        local value = found and found[FACTS[place]] or ''
        row[place] = type(value) == 'number' and string.format('%d', value) or value
    end
    row[TOLD + 1] = now()
    return row
end

-- ---- what no hub has written

-- Move all entries to another key, a step after the other: so they do not take the room twice.
local function move(from, to)
    local rows
    redis.call('DEL', to)
    repeat
        rows = redis.call('XRANGE', from, '-', '+', 'COUNT', STEP)
        for _, row in ipairs(rows) do
            local seq, ms = taken(row)
            if ms then
                redis.call('XADD', to, row[1], unpack(row[2]))
            end
            redis.call('XTRIM', from, 'MINID', id_of(seq + 1))
        end
    until #rows < STEP
    redis.call('DEL', from)
end

-- Let the next number be the one behind `seq`, whatever stood behind it. Newer servers do not go back behind an entry that
-- was deleted: there the stream is made anew, at some 3 µs an entry.
local function set_last(keys, seq)
    local stream, spare = keys[1], keys[11]
    local words = { 'XSETID', stream, id_of(seq), 'ENTRIESADDED', string.format('%d', seq), 'MAXDELETEDID', '0-0' }
    if redis.call('EXISTS', stream) == 1 and redis.pcall(unpack(words)).err then
        move(stream, spare)
        if redis.pcall('RENAME', spare, stream).err then -- it is not allowed, or there is nothing
            move(spare, stream)
        end
    end
end

-- Whether this entry behind the newest event is the copy of another: its id is that of one, or it is as the one before it.
-- Hubs ask before they hand on what is older than the one before it, or the same.
local function is_copy(keys, found, seq, id, entry)
    if id ~= '' then
        local first = tonumber(redis.call('HGET', keys[3], id) or nil)
        return first and first ~= seq
    end
    local before = redis.call('XRANGE', keys[1], id_of(found.seq), id_of(found.seq))[1]
    return before and before[2][2] == entry
end

-- Take out what stands behind the newest event. But what is like a new event there, of an epoch of this stream, is one:
-- hubs that did not ask may have handed it on.
local function weed(keys, found)
    local stream, some, rows, ours = keys[1], false, nil, { [found.epoch] = true }
    for _, pair in ipairs(earlier(found)) do
        ours[pair[1]] = true
    end
    repeat
        rows = redis.call('XRANGE', stream, '(' .. id_of(found.seq), '+', 'COUNT', STEP)
        local foreign = {}
        for _, row in ipairs(rows) do
            local seq, ms, epoch, weight, id = taken(row)
            if ms and seq < CLOCK and ours[epoch] and not is_copy(keys, found, seq, id, row[2][2]) then
                found.holes = found.holes + seq - found.seq - 1
                found.seq, found.bytes = seq, found.bytes + size(weight, epoch, seq)
                if id ~= '' then
                    found.known = found.known + redis.call('HSETNX', keys[3], id, seq)
                end
            else
                foreign[#foreign + 1] = row[1]
            end
        end
        if #foreign > 0 then
            redis.call('XDEL', stream, unpack(foreign))
            found.foreign, some = found.foreign + #foreign, true
        end
    until #rows < STEP
    if some then
        set_last(keys, found.seq)
    end
end

-- Count anew what there is, at some 2 µs an entry; what no hub has written goes. Returns the epochs of the entries, each
-- with its last number.
local function count(keys, found)
    local stream, ids, from, rows = keys[1], keys[3], '-', nil
    local first, last, bytes, events, epochs, foreign = nil, 0, 0, 0, {}, {}
    redis.call('DEL', ids)
    repeat
        rows = redis.call('XRANGE', stream, from, '+', 'COUNT', STEP)
        local known = {}
        for _, row in ipairs(rows) do
            local seq, ms, epoch, weight, id = taken(row)
            if ms and seq <= found.seq then
                first, last, events, bytes = first or seq, seq, events + 1, bytes + size(weight, epoch, seq)
                if id ~= '' then
                    known[#known + 1], known[#known + 2] = id, seq
                end
                if #epochs == 0 or epochs[#epochs][1] ~= epoch then
                    epochs[#epochs + 1] = { epoch, seq }
                end
                epochs[#epochs][2] = seq
            else
                foreign[#foreign + 1] = row[1]
            end
            from = '(' .. row[1]
        end
        if #known > 0 then
            redis.call('HSET', ids, unpack(known))
        end
    until #rows < STEP
    for _, id in ipairs(foreign) do
        redis.call('XDEL', stream, id)
    end
    if found.seq == CLOCK then -- nobody knows it any more; the server may, of one that was deleted
        local info, newest = redis.call('XINFO', 'STREAM', stream), 0
        for at = 1, #info, 2 do
            if info[at] == 'last-generated-id' then
                newest = tonumber(string.match(info[at + 1], '^(%d+)%-0$')) or 0
            end
        end
        found.seq = math.max(last, newest < CLOCK and newest or 0)
    end
    set_last(keys, found.seq)
    found.tail, found.bytes, found.foreign = first or found.seq + 1, bytes, found.foreign + #foreign
    found.holes, found.known = found.seq - found.tail + 1 - events, redis.call('HLEN', ids)
    return epochs
end

-- Take out what is foreign, and count anew if something is missing, or too much.
local function mend(keys, found)
    weed(keys, found)
    local events, known = redis.call('XLEN', keys[1]), redis.call('HLEN', keys[3])
    if events ~= found.seq - found.tail + 1 - found.holes or known ~= found.known or found.bytes < 0 then
        count(keys, found)
    end
end

-- Whether another event stands under this number than the one that was accepted then; nil if nobody can say.
local function is_other(keys, seq, ms)
    local row = ms ~= '' and redis.call('XRANGE', keys[1], id_of(seq), id_of(seq))[1]
    if row then
        local _, at = taken(row)
        return at ~= ms
    end
end
