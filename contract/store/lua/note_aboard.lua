#!lua flags=allow-oom
-- Notes the jobs of the micro-batch that a worker begins; they take the place of those of the last one.
-- KEYS: aboard    ARGV: task IDs
redis.call('DEL', KEYS[1])
for _, id in ipairs(ARGV) do redis.call('SADD', KEYS[1], id) end
