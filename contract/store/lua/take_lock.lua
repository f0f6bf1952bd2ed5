#!lua flags=allow-oom
-- Takes or renews a lock that expires by itself.
-- KEYS: lock    ARGV: holder, TTL s, '1' to take it from any holder
-- Returns 1 if it was taken, else 0.
if ARGV[3] ~= '1' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
