#!lua flags=allow-oom
-- Notes that a rewrite begins, in one step with its command.
-- KEYS: forgettable since, rewriting    ARGV: run of the Redis server
-- Returns 1, or 0 if there is nothing to forget or a rewrite runs for it.
local since = redis.call('GET', KEYS[1])
if not since or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local now = redis.call('TIME')
-- The time makes it differ from that of any other rewrite.
redis.call('SET', KEYS[2], table.concat({since, ARGV[1], now[1], now[2]}, ' '))
redis.call('DEL', KEYS[1])
return 1
