#!lua flags=allow-oom
-- Moves a waiting message to the queue of another model, and binds its job to that; or takes it out of
-- its queue. Safe to repeat: what somebody else moved or changed is left alone.
-- KEYS: turns, waiting list of the client and deficits that it is taken from, record, batch ('' if it is
--       no part), turns and waiting (prefix) that it is added to ('' to take it out only)
-- ARGV: message, client, record as it was read ('' to leave the record alone), record with the new
--       model, message with the new model, fingerprint that a batch must be bound to (or to the new
--       one), new fingerprint
-- Returns 1 if it was moved, 'scored' if its batch has scores already, else 0.
-- include: queue
local batch = KEYS[5]
if batch ~= '' and KEYS[6] ~= '' then
  local found = redis.call('HMGET', batch, 'fingerprint', 'completed')
  local bound = found[1] or '?'
  if bound ~= ARGV[6] and bound ~= ARGV[7] then return 0 end
  -- Lines that failed have no score of any model.
  if bound ~= ARGV[7] and tonumber(found[2] or '0') > 0 then return 'scored' end
end
if ARGV[3] ~= '' and redis.call('GET', KEYS[4]) ~= ARGV[3] then return 0 end
if redis.call('LREM', KEYS[2], -1, ARGV[1]) == 0 then return 0 end
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('LREM', KEYS[1], 0, ARGV[2])
  redis.call('HDEL', KEYS[3], ARGV[2])
end
if KEYS[6] == '' then return 1 end
if ARGV[3] ~= '' then redis.call('SET', KEYS[4], ARGV[4], 'KEEPTTL') end
if batch ~= '' and redis.call('EXISTS', batch) == 1 then
  redis.call('HSET', batch, 'fingerprint', ARGV[7])
end
enqueue(KEYS[6], KEYS[7], ARGV[2], ARGV[5])
return 1
