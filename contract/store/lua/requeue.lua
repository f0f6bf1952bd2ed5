#!lua flags=allow-oom
-- Puts one unacknowledged message before all waiting ones of its queue, once.
-- The caller decodes and changes the message: the JSON decoder of Redis refuses strings that the
-- encoder of Python accepts.
-- KEYS: unacked, unacked index, turns, waiting (prefix), totals (only for a redelivery)
-- ARGV: delivery tag, message, name of the counter in totals (only for a redelivery)
-- Returns 1 if it was put back, 0 if it was acknowledged or put back before.
-- include: queue
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
enqueue_first(KEYS[3], KEYS[4], ARGV[2])
if KEYS[5] then redis.call('HINCRBY', KEYS[5], ARGV[3], 1) end
return 1
