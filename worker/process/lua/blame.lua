#!lua flags=allow-oom
-- Counts the death of a worker against each job that it was scoring, once.
-- KEYS: aboard, missing suspects, missing workers, totals
-- ARGV: worker, prefix of the keys of crashes, TTL s of a count
-- Returns the task IDs of the jobs.
local blamed = {}
for i = 1, 2 do
  local tags = redis.call('SMEMBERS', KEYS[i])
  for _, tag in ipairs(tags) do
    local crashes = ARGV[2] .. tag
    redis.call('HINCRBY', crashes, 'deaths', 1)
    if #tags == 1 then redis.call('HSET', crashes, 'was_alone', 1) end
    redis.call('EXPIRE', crashes, ARGV[3])
    blamed[#blamed + 1] = tag
  end
end
if #blamed > 0 then redis.call('HINCRBY', KEYS[4], 'deaths_while_scoring', 1) end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[1])
return blamed
