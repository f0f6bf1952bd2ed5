#!lua flags=allow-oom
-- Puts one unacknowledged message back at the consuming end of its list, once.
-- The caller decodes and changes the message: the JSON decoder of Redis refuses strings that the
-- encoder of Python accepts.
-- KEYS: unacked, unacked index, list    ARGV: delivery tag, message
-- Returns 1 if it was put back, 0 if it was acknowledged or put back before.
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('RPUSH', KEYS[3], ARGV[2])
return 1
