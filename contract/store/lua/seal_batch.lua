-- Accepts a batch whose parts are all stored, or says why not, in one step.
-- KEYS: batch, parts, texts, live batches, unpublished, idempotency ('' if none), live lines,
--       bulk load, clients of batches, counts per client, the two keys of promises.lua, models,
--       fingerprints
-- ARGV: batch ID, number of parts, bytes of work, most live bytes, TTL s, idempotency value,
--       idempotency TTL s, lines, most live batches, client, promised bytes, room for promises, the
--       three of models.lua, then names and values of the batch's facts
-- Returns {'accepted'}, {'replay', idempotency value}, {'full', live bytes, live batches},
-- {'share', live bytes, live batches of the client}, {'no_room', promised bytes}, {'room_share',
-- promised bytes of the client}, {'rebind', fingerprint} or {'lost'}.
-- include: models
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
local other = superseded_by(KEYS[13], KEYS[14], ARGV[13], ARGV[14], ARGV[15])
if other then return {'rebind', other} end
local work, client = tonumber(ARGV[3]), ARGV[10]
local bytes = tonumber(redis.call('HGET', KEYS[8], 'bytes') or '0')
local batches = redis.call('HLEN', KEYS[4])
local free_bytes, free_batches = tonumber(ARGV[4]) - bytes, tonumber(ARGV[9]) - batches
if work > free_bytes or free_batches < 1 then return {'full', bytes, batches} end
-- A client may hold as much as is free, as in submit.lua.
local own =
  redis.call('HMGET', KEYS[10], 'bytes:' .. client, 'batches:' .. client, 'promised:' .. client)
local own_bytes, own_batches = tonumber(own[1] or '0'), tonumber(own[2] or '0')
if own_bytes + work > free_bytes or own_batches + 1 > free_batches then
  return {'share', own_bytes, own_batches}
end
local promised, own_promised = tonumber(redis.call('GET', KEYS[11]) or '0'), tonumber(own[3] or '0')
local free_room = tonumber(ARGV[12]) - promised
if tonumber(ARGV[11]) > free_room then return {'no_room', promised} end
if own_promised + ARGV[11] > free_room then return {'room_share', own_promised} end
if ARGV[11] ~= '0' then
  redis.call('INCRBY', KEYS[11], ARGV[11])
  redis.call('HSET', KEYS[12], ARGV[1], ARGV[11])
  redis.call('HINCRBY', KEYS[10], 'promised:' .. client, ARGV[11])
end
redis.call('HSET', KEYS[1], unpack(ARGV, 16))
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[5]) end
redis.call('HSET', KEYS[4], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[7], ARGV[1], ARGV[8])
redis.call('HINCRBY', KEYS[8], 'bytes', ARGV[3])
redis.call('HINCRBY', KEYS[8], 'lines', ARGV[8])
redis.call('HSET', KEYS[9], ARGV[1], client)
redis.call('HINCRBY', KEYS[10], 'bytes:' .. client, ARGV[3])
redis.call('HINCRBY', KEYS[10], 'batches:' .. client, 1)
redis.call('SADD', KEYS[5], ARGV[1])
if KEYS[6] ~= '' then redis.call('SET', KEYS[6], ARGV[6], 'EX', ARGV[7]) end
return {'accepted'}
