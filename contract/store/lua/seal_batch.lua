-- Accepts a batch whose parts are all stored, or says why not, in one step.
-- KEYS: batch, parts, texts, live batches, unpublished, idempotency ('' if none), live lines,
--       bulk load, clients of batches, counts per client, the two keys of promises.lua, models,
--       fingerprints, quota ('' if none), stored (prefix)
-- ARGV: batch ID, client, TTL s, idempotency value, idempotency TTL s, number of parts, lines, bytes of
--       work, promised bytes, most live batches, most live bytes, room for promises, share of the queue,
--       requests and bytes per minute, the three of models.lua, then names and values of the batch's
--       facts
-- Returns {'accepted', then requests and bytes left of the quota}, {'replay', idempotency value},
-- {'full', live batches, live bytes}, {'share', live batches, live bytes of the client}, {'no_room',
-- promised bytes}, {'room_share', promised and stored bytes of the client}, {'quota', requests and bytes
-- left, seconds to wait}, {'rebind', fingerprint} or {'lost'}.
-- include: models
-- include: quota
-- include: stored
local id, client, ttl, idempotency, idempotency_ttl = unpack(ARGV, 1, 5)
local numbers = {}
for i = 6, 15 do numbers[i - 5] = tonumber(ARGV[i]) end
local parts, lines, work, promise, max_batches, max_bytes, room, share, max_requests_min, max_bytes_min =
  unpack(numbers)

local quota = {}
if redis.call('EXISTS', KEYS[1]) == 1 then
  -- The ID is fresh and random, so this is our own try, repeated after a lost reply.
  if KEYS[15] ~= '' then quota = look_at_quota(KEYS[15], max_requests_min, max_bytes_min) end
  return {'accepted', quota.requests, quota.bytes}
end
if KEYS[6] ~= '' then
  local earlier = redis.call('GET', KEYS[6])
  if earlier then return {'replay', earlier} end
end
local stored = redis.call('ZCARD', KEYS[2])
if stored ~= parts or redis.call('HLEN', KEYS[3]) ~= stored then return {'lost'} end
local other = superseded_by(KEYS[13], KEYS[14], unpack(ARGV, 16, 18))
if other then return {'rebind', other} end

local bytes = tonumber(redis.call('HGET', KEYS[8], 'bytes') or '0')
local batches = redis.call('HLEN', KEYS[4])
local free_bytes, free_batches = max_bytes - bytes, max_batches - batches
if work > free_bytes or free_batches < 1 then return {'full', batches, bytes} end
-- A client may hold as much as is free, as in submit.lua.
local own =
  redis.call('HMGET', KEYS[10], 'bytes:' .. client, 'batches:' .. client, 'promised:' .. client)
local own_bytes, own_batches = tonumber(own[1] or '0'), tonumber(own[2] or '0')
if own_bytes + work > math.min(free_bytes, math.max(share * max_bytes, work))
  or own_batches + 1 > math.min(free_batches, math.max(share * max_batches, 1)) then
  return {'share', own_batches, own_bytes}
end
local promised, own_promised = tonumber(redis.call('GET', KEYS[11]) or '0'), tonumber(own[3] or '0')
local free_room = room - promised
if promise > free_room then return {'no_room', promised} end
local own_stored = stored_bytes(KEYS[16], client)
if own_promised + own_stored + promise > free_room then
  return {'room_share', own_promised, own_stored}
end
if KEYS[15] ~= '' then
  quota = look_at_quota(KEYS[15], max_requests_min, max_bytes_min)
  if quota.wait_s > 0 then return {'quota', quota.requests, quota.bytes, quota.wait_s} end
  quota = take_from_quota(KEYS[15], quota, work, max_requests_min, max_bytes_min)
end

if promise > 0 then
  redis.call('INCRBY', KEYS[11], promise)
  redis.call('HSET', KEYS[12], id, promise)
  redis.call('HINCRBY', KEYS[10], 'promised:' .. client, promise)
end
redis.call('HSET', KEYS[1], unpack(ARGV, 19))
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ttl) end
redis.call('HSET', KEYS[4], id, work)
redis.call('HSET', KEYS[7], id, lines)
redis.call('HINCRBY', KEYS[8], 'bytes', work)
redis.call('HINCRBY', KEYS[8], 'lines', lines)
redis.call('HSET', KEYS[9], id, client)
redis.call('HINCRBY', KEYS[10], 'bytes:' .. client, work)
redis.call('HINCRBY', KEYS[10], 'batches:' .. client, 1)
redis.call('SADD', KEYS[5], id)
if KEYS[6] ~= '' then redis.call('SET', KEYS[6], idempotency, 'EX', idempotency_ttl) end
return {'accepted', quota.requests, quota.bytes}
