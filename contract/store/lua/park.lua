#!lua flags=allow-oom
-- Parks an unacknowledged message until a worker of a newer release takes it.
-- KEYS: unacked, unacked index, parked messages of its version, versions with parked messages
-- ARGV: delivery tag, major version, Unix time
-- Returns 1 if it was parked, 0 if it was acknowledged or parked before.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored then return 0 end
redis.call('ZADD', KEYS[3], ARGV[3], string.match(stored, '^%[(.*), "", "[^"]*"%]$') or stored)
redis.call('SADD', KEYS[4], ARGV[2])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
