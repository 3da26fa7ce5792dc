-- What is read of the stream: events, their names, last values.

local STREAM = 'EPOCH the stream is not there'

-- Call `take(seq, row, …)` with the events behind `after` up to `last`, as long as it says that it wants more. What no
-- hub has written is passed over, and so is what stands behind the newest event.
local function each(keys, after, last, step, take)
    local newest = tonumber(redis.call('HGET', keys[2], 'seq') or nil)
    if not newest then
        return redis.error_reply(STREAM)
    end
    last = math.min(tonumber(last) or newest, newest)
    while after < last do
        local rows = redis.call('XRANGE', keys[1], id_of(after + 1), id_of(last), 'COUNT', step)
        if #rows == 0 then
            break
        end
        for _, row in ipairs(rows) do
            local seq, ms, epoch, weight, _, from = taken(row)
            after = seq
            if ms and not take(seq, row[2][2], epoch, weight, from) then
                return nil
            end
        end
        step = math.min(4 * step, STEP)
    end
end

-- args: after, until (or ''), limit, bytes (or ''). Returns "<seq> <length> <seq> <length> …", and the entries, one behind
-- the other: two texts are faster taken apart by a client than two for each entry.
local function read(keys, args)
    local limit, most = tonumber(args[3]), tonumber(args[4]) or math.huge
    local lengths, entries, filled = {}, {}, 0
    if limit <= 0 then
        return { '', '' }
    end
    local err = each(keys, tonumber(args[1]), args[2], math.min(16, limit), function(seq, entry, epoch, weight)
        entries[#entries + 1] = entry
        lengths[#lengths + 1] = string.format('%d %d', seq, #entry)
        filled = filled + size(weight, epoch, seq)
        return #entries < limit and filled < most
    end)
    return err or { table.concat(lengths, ' '), table.concat(entries) }
end

-- args: after, until, limit. Returns seq, name, seq, name, …, and no more once a MiB was looked through.
local function names(keys, args)
    local limit, reply, seen = 2 * tonumber(args[3]), {}, 0
    if limit <= 0 then
        return reply
    end
    local err = each(keys, tonumber(args[1]), args[2], math.min(STEP, limit / 2), function(seq, entry, _, _, from)
        seen = seen + #entry
        reply[#reply + 1] = seq
        reply[#reply + 1] = string.match(entry, '^[^\n]*', from)
        return #reply < limit and seen < 1048576
    end)
    return err or reply
end

-- args: after, count. The last values that changed behind this seq, longest unchanged first: the seq of that change,
-- value, seq of its hub:stale or '', …; no more once they fill a MiB, and one at least if there is one.
local function values(keys, args)
    local reply, filled = {}, 0
    local after, count = '(' .. args[1], args[2]
    local rows = redis.call('ZRANGE', keys[6], after, '+inf', 'BYSCORE', 'LIMIT', 0, count, 'WITHSCORES')
    for at = 1, #rows, 2 do
        local value = redis.call('HGET', keys[4], rows[at]) or ''
        filled = filled + #value
        if filled > 1048576 and #reply > 0 then
            break
        end
        reply[#reply + 1] = rows[at + 1]
        reply[#reply + 1] = value
        reply[#reply + 1] = redis.call('HGET', keys[5], rows[at]) or ''
    end
    return reply
end

redis.register_function({ function_name = 'hub_read', callback = read, flags = { 'no-writes' } })
redis.register_function({ function_name = 'hub_names', callback = names, flags = { 'no-writes' } })
redis.register_function({ function_name = 'hub_values', callback = values, flags = { 'no-writes' } })
