-- Events come and go.

-- ---- what goes

-- Take the oldest entries away until `enough(ms, oldest, bytes)`, at most so many; whether that was enough.
local function forget(keys, found, most, enough)
    local stream, done = keys[1], false
    while not done and found.tail <= found.seq and most > 0 do
        local rows, known = redis.call('XRANGE', stream, '-', '+', 'COUNT', math.min(STEP, most)), {}
        if #rows == 0 then
            found.tail, found.bytes, found.holes = found.seq + 1, 0, 0
        end
        for _, row in ipairs(rows) do
            local seq, ms, epoch, weight, id = taken(row)
            if ms and enough(ms, found.tail, found.bytes) then
                done = true
                break
            end
            most = most - 1
            if ms then
                found.holes = found.holes - (seq - found.tail)
                found.tail, found.bytes = seq + 1, found.bytes - size(weight, epoch, seq)
                if id ~= '' then
                    known[#known + 1] = id
                end
            end
        end
        if #known > 0 then
            found.known = found.known - redis.call('HDEL', keys[3], unpack(known))
        end
        if #rows > 0 then
            redis.call('XTRIM', stream, 'MINID', id_of(found.tail))
        end
    end
    return done
end

local function cap(keys, found)
    local values, ends, places = keys[4], keys[5], keys[6]
    while redis.call('ZCARD', places) > found.items or found.filled > found.room do
        local oldest = redis.call('ZPOPMIN', places)[1]
        if not oldest then
            found.filled = 0
            break
        end
        found.filled = found.filled - redis.call('HSTRLEN', values, oldest)
        redis.call('HDEL', values, oldest)
        redis.call('HDEL', ends, oldest)
    end
end

-- ---- events

-- Keep an entry under the number behind `before`, the first of a call: behind what another program has written there, if
-- it has. Returns its number, or the error, if nothing has been written.
local function first(keys, found, entry)
    local put = redis.pcall('XADD', keys[1], id_of(found.seq + 1), 'd', entry)
    if put.err and string.sub(put.err, 1, 4) == 'ERR ' then
        weed(keys, found)
        set_last(keys, found.seq)
        save(keys, found)
        put = redis.pcall('XADD', keys[1], id_of(found.seq + 1), 'd', entry)
    end
    return put.err and put
end

local EXPECTED = { [4] = 'hash', [5] = 'hash', [6] = 'zset' } -- where last values are

-- args: epoch, the position of who asks, then for each draft: the end of its entry, from its weight on; and what it does
-- to a last value: nothing, 'k<place>' for its own, 's<seq> <place>' for the lease of that event. Returns the last seq
-- before, and then for each draft whose id is known already its place in the call and the seq of the first one.
local function append(keys, args)
    local stream, ids, values, ends, places = keys[1], keys[3], keys[4], keys[5], keys[6]
    local found = facts(keys)
    if not found or found.epoch ~= args[1] or tonumber(args[2]) > found.seq then
        return redis.error_reply(MOVED)
    end
    local epoch, ms, keyed = found.epoch, now(), false
    local weights, names, firsts = {}, {}, {}
    for at = 3, #args, 2 do
        local weight, length, from = string.match(args[at], '^(%d+) (%d+) %d+ ()')
        local id = string.sub(args[at], from, from + length - 1)
        weights[at], names[at], keyed = tonumber(weight), id, keyed or args[at + 1] ~= ''
        if id ~= '' then
            firsts[id] = redis.call('HGET', ids, id) or nil
        end
    end
    for place, expected in pairs(keyed and EXPECTED or {}) do
        local kind = redis.call('TYPE', keys[place]).ok
        if kind ~= 'none' and kind ~= expected then
            return redis.error_reply('WRONGTYPE a key of the stream is another program\'s')
        end
    end
    local reply, begun = { found.seq }, false
    for at = 3, #args, 2 do
        local id, place = names[at], args[at + 1]
        if firsts[id] then
            reply[#reply + 1] = (at - 3) / 2
            reply[#reply + 1] = tonumber(firsts[id])
        else
            local entry = ms .. ' ' .. epoch .. ' ' .. args[at]
            if begun then
                redis.call('XADD', stream, id_of(found.seq + 1), 'd', entry)
            else
                local err = first(keys, found, entry)
                if err then
                    return err
                end
                begun, reply[1] = true, found.seq
            end
            local seq = found.seq + 1
            found.seq, found.bytes = seq, found.bytes + size(weights[at], epoch, seq)
            if id ~= '' then
                firsts[id] = seq
                found.known = found.known + redis.call('HSET', ids, id, seq)
            end
            local does = string.byte(place)
            if does == 107 then -- k
                place = string.sub(place, 2)
                local value = string.format('%d ', seq) .. entry
                found.filled = found.filled - redis.call('HSTRLEN', values, place)
                redis.call('HDEL', ends, place)
                if #value <= found.room then
                    found.filled = found.filled + #value
                    redis.call('HSET', values, place, value)
                    redis.call('ZADD', places, seq, place)
                else -- it would push all others out, and could not stay itself
                    redis.call('HDEL', values, place)
                    redis.call('ZREM', places, place)
                end
            elseif does == 115 then -- s
                local ended, from = string.match(place, '^s(%d+) ()')
                place = string.sub(place, from)
                local changed = redis.call('ZSCORE', places, place)
                if changed and tonumber(changed) == tonumber(ended) then
                    redis.call('HSET', ends, place, seq)
                    redis.call('ZADD', places, seq, place)
                end
            end
        end
    end
    if begun then
        local most, weight = found.events, found.size
        if keyed then
            cap(keys, found)
        end
        local slack = math.min(STEP, math.floor(most / 100))
        if found.seq - found.tail + 1 > most + slack or found.bytes > weight * 1.01 then
            local young = tonumber(ms) - YOUNG
            forget(keys, found, found.seq - reply[1] + 4 * STEP, function(at, oldest, left)
                local count = found.seq - oldest + 1
                return count <= most and left <= weight
                    or oldest > reply[1]
                    or tonumber(at) > young and count <= 2 * most + 4 * STEP and left <= 2 * weight + 1048576
            end)
        end
        save(keys, found)
    end
    return reply
end

-- args: epoch, the position of who asks, and a number that it has seen with when that was accepted. What is over the
-- limits, or too old, goes, some of it, and what no hub has written; as hub_look, and whether there may be more.
local function tidy(keys, args)
    local found = facts(keys)
    if not found or found.epoch ~= args[1] then
        return redis.error_reply(MOVED)
    end
    mend(keys, found)
    if tonumber(args[2]) > found.seq or is_other(keys, tonumber(args[3]), args[4]) then
        save(keys, found)
        return redis.error_reply(MOVED)
    end
    local most, weight, ms = found.events, found.size, tonumber(now())
    local oldest, young = ms - 1000 * tonumber(found.seconds), ms - YOUNG
    local done = forget(keys, found, 4 * STEP, function(at, first, filled)
        return found.seq - first + 1 <= most and filled <= weight and tonumber(at) >= oldest or tonumber(at) > young
    end)
    save(keys, found)
    local row = look(keys)
    row[#row + 1] = (done or found.tail > found.seq) and '' or '1'
    return row
end

redis.register_function('hub_append', append)
redis.register_function('hub_tidy', tidy)
