#!lua flags=allow-oom
-- Forget a job whatever its state: record, payload, result and counts; its waiters are told.
-- KEYS: record, payload, live jobs, live bytes, result    ARGV: task ID
-- Returns 1 if there was a record, else 0.
local existed = redis.call('DEL', KEYS[1])
redis.call('DEL', KEYS[2], KEYS[5])
local bytes = redis.call('HGET', KEYS[3], ARGV[1])
if bytes then
  redis.call('HDEL', KEYS[3], ARGV[1])
  redis.call('DECRBY', KEYS[4], bytes)
end
redis.call('PUBLISH', KEYS[1], '')
return existed
