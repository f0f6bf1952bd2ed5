#!lua flags=allow-oom
-- Puts a parked message before all waiting ones, once.
-- KEYS: parked messages of its version, versions with parked messages, turns, waiting (prefix)
-- ARGV: message, major version
-- include: queue
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then enqueue_first(KEYS[3], KEYS[4], ARGV[1]) end
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SREM', KEYS[2], ARGV[2]) end
