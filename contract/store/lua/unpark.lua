#!lua flags=allow-oom
-- Puts a parked message back at the consuming end of its list, once.
-- KEYS: parked messages of its version, list, versions with parked messages
-- ARGV: message, major version
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then redis.call('RPUSH', KEYS[2], ARGV[1]) end
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SREM', KEYS[3], ARGV[2]) end
