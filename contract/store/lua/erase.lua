#!lua flags=allow-oom
-- Forgets a job whatever its state: record, payload, result and counts; wakes its waiters.
-- KEYS: record, payload, result, the four keys of live.lua, forgettable since    ARGV: task ID
-- Returns 1 if there was a record, else 0.
-- include: forgetting
-- include: live
local existed = redis.call('DEL', KEYS[1])
if redis.call('DEL', KEYS[2], KEYS[3]) + existed > 0 then note_deleted(KEYS[8]) end
drop_live({unpack(KEYS, 4, 7)}, ARGV[1])
redis.call('PUBLISH', KEYS[1], '')
return existed
