-- Counts the messages in queues, and finds the one that was submitted first.
-- KEYS: of each queue its turns and waiting (prefix)    Returns of each queue the number of
-- messages, and the Unix time of its oldest message ('' if it is empty or no message has a time).
local counts = {}
for i = 1, #KEYS, 2 do
  local count, oldest, oldest_at = 0, '', math.huge
  for _, client in ipairs(redis.call('LRANGE', KEYS[i], 0, -1)) do
    local list = KEYS[i + 1] .. client
    count = count + redis.call('LLEN', list)
    -- The last one is the next, so the oldest of its client.
    local at = string.match(redis.call('LINDEX', list, -1) or '', '"submitted_at":([%d.]+)')
    if tonumber(at or '') and tonumber(at) < oldest_at then oldest, oldest_at = at, tonumber(at) end
  end
  counts[#counts + 1], counts[#counts + 2] = count, oldest
end
return counts
