-- Accept a batch whose parts are all stored, or say why not, in one step.
-- KEYS: batch, parts, texts, live batches, unpublished, idempotency ('' if none), live lines,
--       bulk load
-- ARGV: batch ID, number of parts, bytes of work, most live bytes, TTL s, idempotency value,
--       idempotency TTL s, lines, most live batches, then names and values of the batch's facts
-- Returns {'accepted'}, {'replay', idempotency value}, {'full', live bytes, live batches} or
-- {'lost'}.
if redis.call('EXISTS', KEYS[1]) == 1 then
  -- The ID is fresh and random, so this is our own try, repeated after a lost reply.
  return {'accepted'}
end
if KEYS[6] ~= '' then
  local earlier = redis.call('GET', KEYS[6])
  if earlier then return {'replay', earlier} end
end
local stored = redis.call('ZCARD', KEYS[2])
if stored ~= tonumber(ARGV[2]) or redis.call('HLEN', KEYS[3]) ~= stored then return {'lost'} end
local bytes = tonumber(redis.call('HGET', KEYS[8], 'bytes') or '0')
local batches = redis.call('HLEN', KEYS[4])
if bytes + tonumber(ARGV[3]) > tonumber(ARGV[4]) or batches >= tonumber(ARGV[9]) then
  return {'full', bytes, batches}
end
redis.call('HSET', KEYS[1], unpack(ARGV, 10))
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[5]) end
redis.call('HSET', KEYS[4], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[7], ARGV[1], ARGV[8])
redis.call('HINCRBY', KEYS[8], 'bytes', ARGV[3])
redis.call('HINCRBY', KEYS[8], 'lines', ARGV[8])
redis.call('SADD', KEYS[5], ARGV[1])
if KEYS[6] ~= '' then redis.call('SET', KEYS[6], ARGV[6], 'EX', ARGV[7]) end
return {'accepted'}
