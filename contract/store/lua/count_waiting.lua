-- Counts the messages in queues.
-- KEYS: of each queue its turns and waiting (prefix)    Returns the number of messages of each queue.
local counts = {}
for i = 1, #KEYS, 2 do
  local count = 0
  for _, client in ipairs(redis.call('LRANGE', KEYS[i], 0, -1)) do
    count = count + redis.call('LLEN', KEYS[i + 1] .. client)
  end
  counts[#counts + 1] = count
end
return counts
