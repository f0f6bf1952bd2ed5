#!lua flags=allow-oom
-- Puts a parked message behind the waiting ones of its client, once.
-- KEYS: parked messages of its version, versions with parked messages, turns, waiting (prefix), live jobs,
--       clients of batches
-- ARGV: message, major version, task ID ('' if it is not known), batch ID ('' if it is no part)
-- include: queue

-- Without a client the job has ended: the next fetch takes its message out of the queue.
local function client_of(id, batch_id)
  if batch_id ~= '' then return redis.call('HGET', KEYS[6], batch_id) or EXPRESS end
  local entry = redis.call('HGET', KEYS[5], id)
  if not entry then return EXPRESS end
  return string.match(entry, '^%d+ %d+ (.*)$') or ''
end

if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then
  enqueue(KEYS[3], KEYS[4], client_of(ARGV[3], ARGV[4]), ARGV[1])
end
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SREM', KEYS[2], ARGV[2]) end
