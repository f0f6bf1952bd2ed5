#!lua flags=allow-oom
-- Takes a worker off the list of workers, unless it has a lease or unacknowledged messages: it may have
-- been stopped for a while, and go on.
-- KEYS: workers, lease, unacked    ARGV: worker
if redis.call('EXISTS', KEYS[2], KEYS[3]) == 0 then redis.call('SREM', KEYS[1], ARGV[1]) end
