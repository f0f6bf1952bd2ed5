#!lua flags=allow-oom
-- Notes keys that expired, and what became of the rewrite that was seen to run.
-- KEYS: forgettable since, rewriting, expired    ARGV: what stands for the keys that expired, rewriting
--       as it was read ('' for none), 'running', 'ok' or 'failed', seconds that a deletion may be old
-- Returns 'forgotten' or 'failed' if a rewrite has ended, 'due' if one shall begin, else ''.
-- include: forgetting
if redis.call('GET', KEYS[3]) ~= ARGV[1] then
  redis.call('SET', KEYS[3], ARGV[1])
  note_deleted(KEYS[1])
end
local rewriting = redis.call('GET', KEYS[2])
if ARGV[3] == 'running' or (rewriting or '') ~= ARGV[2] then return '' end
if rewriting then
  redis.call('DEL', KEYS[2])
  if ARGV[3] == 'ok' then return 'forgotten' end
  redis.call('SET', KEYS[1], string.match(rewriting, '^%d+'))
  return 'failed'
end
local since = redis.call('GET', KEYS[1])
if not since then return '' end
local age = redis.call('TIME')[1] - since
-- The clock of Redis was ahead: the deletion counts from now on.
if age < 0 then redis.call('INCRBY', KEYS[1], age) end
return age >= tonumber(ARGV[4]) and 'due' or ''
