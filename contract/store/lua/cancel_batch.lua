#!lua flags=allow-oom
-- Notes that a batch shall end, unless it has ended or is gone; repeating it is harmless.
-- KEYS: batch, cancelling    ARGV: Unix time, batch ID
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HEXISTS', KEYS[1], 'ended_at') == 0 then
  redis.call('HSETNX', KEYS[1], 'cancelling_at', ARGV[1])
  redis.call('SADD', KEYS[2], ARGV[2])
  redis.call('PUBLISH', KEYS[1], '')
end
