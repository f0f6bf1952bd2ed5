#!lua flags=allow-oom
-- Replaces a worker's list of the jobs in its micro-batch.
-- KEYS: aboard    ARGV: task IDs
redis.call('DEL', KEYS[1])
for _, id in ipairs(ARGV) do redis.call('SADD', KEYS[1], id) end
