-- Makes a job that ended as unreadable a waiting job again, unless its record changed meanwhile.
-- KEYS: record, payload, queue list, live jobs, live bytes, letters, raws
-- ARGV: record as it was read, new record, payload, message, task ID, bytes, TTL s, letter ID
-- Returns 1 if the job waits now, else 0.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[7])
redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[7])
redis.call('HSET', KEYS[4], ARGV[5], ARGV[6])
redis.call('INCRBY', KEYS[5], ARGV[6])
redis.call('LPUSH', KEYS[3], ARGV[4])
redis.call('XDEL', KEYS[6], ARGV[8])
redis.call('HDEL', KEYS[7], ARGV[8])
return 1
