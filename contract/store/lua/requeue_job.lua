-- Makes a job that ended as unreadable a waiting job again, unless its record changed meanwhile.
-- KEYS: record, payload, turns, waiting (prefix), letters, raws, the four keys of live.lua,
--       stored (prefix)
-- ARGV: record as it was read, new record, payload, message, task ID, bytes, client, TTL s, letter ID,
--       promised bytes, result TTL s
-- Returns 1 if the job waits now, else 0.
-- include: live
-- include: queue
-- include: stored
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
count_stored_job(KEYS[11], KEYS[1], ARGV[1], ARGV[11], -#ARGV[1])
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[8])
redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[8])
add_live({unpack(KEYS, 7, 10)}, ARGV[5], ARGV[6], ARGV[10], ARGV[7])
enqueue(KEYS[3], KEYS[4], ARGV[7], ARGV[4])
redis.call('XDEL', KEYS[5], ARGV[9])
redis.call('HDEL', KEYS[6], ARGV[9])
return 1
