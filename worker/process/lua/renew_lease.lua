#!lua flags=allow-oom
-- Renews a worker's lease with its status, and takes its suspects back from those of missing workers.
-- KEYS: workers, lease, lost workers, missing suspects ('' for a worker without its name), missing workers
-- ARGV: worker, status, lease ms
-- Returns the time of Redis, in Unix seconds and microseconds.
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[1])
if KEYS[4] ~= '' then
  redis.call('DEL', KEYS[4])
  redis.call('ZREM', KEYS[5], ARGV[1])
end
return redis.call('TIME')
