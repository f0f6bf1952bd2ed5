#!lua flags=allow-oom
-- Forgets a job whatever its state: record, payload, result and counts; wakes its waiters.
-- KEYS: record, payload, result, the four keys of live.lua, forgettable since, stored (prefix)
-- ARGV: task ID, result TTL s
-- Returns 1 if there was a record, else 0.
-- include: forgetting
-- include: live
-- include: stored
local record = redis.call('GET', KEYS[1])
if record and redis.call('HEXISTS', KEYS[4], ARGV[1]) == 0 then
  count_stored_job(KEYS[9], KEYS[1], record, ARGV[2], -#record - redis.call('STRLEN', KEYS[3]))
end
local existed = redis.call('DEL', KEYS[1])
if redis.call('DEL', KEYS[2], KEYS[3]) + existed > 0 then note_deleted(KEYS[8]) end
drop_live({unpack(KEYS, 4, 7)}, ARGV[1])
redis.call('PUBLISH', KEYS[1], '')
return existed
