#!lua flags=allow-oom
-- Sets aside the suspects of a worker whose lease has expired, until it is known whether the
-- worker died.
-- KEYS: aboard, missing suspects, missing workers    ARGV: worker
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('RENAME', KEYS[1], KEYS[2])
  redis.call('ZADD', KEYS[3], redis.call('TIME')[1], ARGV[1])
end
