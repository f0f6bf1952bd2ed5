#!lua flags=allow-oom
-- Takes a lock that expires by itself.
-- KEYS: lock    ARGV: holder, TTL s
-- Returns 1 if it was free, else 0.
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2]) and 1 or 0
