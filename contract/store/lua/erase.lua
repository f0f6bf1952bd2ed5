-- Forget a job whatever its state: record, payload and counts; its waiters are told.
-- KEYS: record, payload, live jobs, live bytes    ARGV: task ID
-- Returns 1 if there was a record, else 0.
local existed = redis.call('DEL', KEYS[1])
redis.call('DEL', KEYS[2])
local bytes = redis.call('HGET', KEYS[3], ARGV[1])
if bytes then
  redis.call('HDEL', KEYS[3], ARGV[1])
  redis.call('DECRBY', KEYS[4], bytes)
end
redis.call('PUBLISH', KEYS[1], '')
return existed
