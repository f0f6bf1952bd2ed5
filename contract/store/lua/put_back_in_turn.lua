#!lua flags=allow-oom
-- Puts clients back into the turns of a queue if they have waiting messages there and no turn.
-- KEYS: turns, waiting (prefix)    ARGV: clients
-- Returns how many were put back.
local count = 0
for _, client in ipairs(ARGV) do
  if redis.call('EXISTS', KEYS[2] .. client) == 1 and not redis.call('LPOS', KEYS[1], client) then
    redis.call('LPUSH', KEYS[1], client)
    count = count + 1
  end
end
return count
