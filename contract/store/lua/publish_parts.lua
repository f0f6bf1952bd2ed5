#!lua flags=allow-oom
-- Queues the next parts of a batch, unless somebody else has done so or the batch is gone.
-- KEYS: batch, unpublished, turns, waiting (prefix), then the record of each part
-- ARGV: batch ID, number of parts queued before, Unix time, TTL s, client, then of each part: record,
--       message
-- Returns the number of parts that are queued now, -1 if the batch is gone.
-- include: queue
local published = tonumber(redis.call('HGET', KEYS[1], 'num_published') or '-1')
if published ~= tonumber(ARGV[2]) then return published end
for i = 5, #KEYS do
  local at = 6 + (i - 5) * 2
  redis.call('SET', KEYS[i], ARGV[at], 'EX', ARGV[4])
  enqueue(KEYS[3], KEYS[4], ARGV[5], ARGV[at + 1])
end
published = redis.call('HINCRBY', KEYS[1], 'num_published', #KEYS - 4)
if published == tonumber(redis.call('HGET', KEYS[1], 'num_parts')) then
  redis.call('SREM', KEYS[2], ARGV[1])
  redis.call('HSET', KEYS[1], 'in_progress_at', ARGV[3])
  redis.call('PUBLISH', KEYS[1], '')
end
return published
