-- Notes the fields that only OpenAI's batches have, unless the batch is gone; what was noted before stays.
-- KEYS: batch, stored (prefix)    ARGV: the fields, result TTL s
-- include: stored
local ttl = tonumber(ARGV[2])
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HSETNX', KEYS[1], 'openai', ARGV[1]) == 1 then
  count_stored_part(KEYS[2], KEYS[1], redis.call('TIME')[1] + ttl, ttl, #ARGV[1])
end
