#!lua flags=allow-oom
-- Forgets a job whatever its state: record, payload, result and counts; its waiters are told.
-- KEYS: record, payload, result, then the four keys of live.lua    ARGV: task ID
-- Returns 1 if there was a record, else 0.
-- include: live
local existed = redis.call('DEL', KEYS[1])
redis.call('DEL', KEYS[2], KEYS[3])
drop_live({unpack(KEYS, 4, 7)}, ARGV[1])
redis.call('PUBLISH', KEYS[1], '')
return existed
