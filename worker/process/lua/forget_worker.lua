#!lua flags=allow-oom
-- Takes a worker off the list of workers, unless it has a lease or unacknowledged messages: it may have
-- been stopped for a while, and go on. It is noted as lost.
-- KEYS: workers, lease, unacked, lost workers    ARGV: worker, for how many seconds it is noted
-- Returns 1 if it is noted.
if redis.call('EXISTS', KEYS[2], KEYS[3]) == 0 and redis.call('SREM', KEYS[1], ARGV[1]) == 1 then
  local now = redis.call('TIME')[1]
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - ARGV[2])
  redis.call('ZADD', KEYS[4], now, ARGV[1])
  redis.call('EXPIRE', KEYS[4], ARGV[2])
  return 1
end
return 0
