-- Accepts a job, or says why not, in one step: record, payload, queue message and counts are
-- written together or not at all.
-- KEYS: record, payload, idempotency ('' if none), turns, waiting (prefix), then the four keys of
--       live.lua, models, fingerprints, quota ('' if none), stored (prefix)
-- ARGV: record, payload, message, task ID, client, record TTL s, idempotency value, idempotency TTL s,
--       bytes, promised bytes, max jobs, max bytes, room for promises, bytes that Redis uses, share of
--       the queue, requests and bytes per minute, then the three of models.lua
-- Returns {'accepted', live jobs, live bytes, then requests and bytes left of the quota}, {'full', live
-- jobs, live bytes}, {'share', live jobs, live bytes of the client}, {'no_room', promised bytes},
-- {'room_share', promised and stored bytes of the client}, {'quota', requests and bytes left, seconds to
-- wait}, {'replay', idempotency value} or {'rebind', fingerprint}.
-- include: live
-- include: models
-- include: queue
-- include: quota
-- include: stored
local live = {unpack(KEYS, 6, 9)}
local record, payload, message, id, client, ttl, idempotency, idempotency_ttl = unpack(ARGV, 1, 8)
local numbers = {}
for i = 9, 17 do numbers[i - 8] = tonumber(ARGV[i]) end
local cost, promise, max_jobs, max_bytes, room, used, share, max_requests_min, max_bytes_min = unpack(numbers)

local jobs = redis.call('HLEN', live[1])
local bytes = tonumber(redis.call('GET', live[2]) or '0')
local quota = {}
if redis.call('EXISTS', KEYS[1]) == 1 then
  -- The ID is fresh and random, so this is our own try, repeated after a lost reply.
  if KEYS[12] ~= '' then quota = look_at_quota(KEYS[12], max_requests_min, max_bytes_min) end
  return {'accepted', jobs, bytes, quota.requests, quota.bytes}
end
if KEYS[3] ~= '' then
  local earlier = redis.call('GET', KEYS[3])
  if earlier then return {'replay', earlier} end
end
local other = superseded_by(KEYS[10], KEYS[11], unpack(ARGV, 18, 20))
if other then return {'rebind', other} end

local free_jobs, free_bytes = max_jobs - jobs, max_bytes - bytes
if free_jobs < 1 or cost > free_bytes then return {'full', jobs, bytes} end
-- A client may hold as much as is free. So one client alone fills half of the queue.
local own = redis.call('HMGET', live[4], 'jobs:' .. client, 'bytes:' .. client, 'promised:' .. client)
local own_jobs, own_bytes = tonumber(own[1] or '0'), tonumber(own[2] or '0')
if own_jobs + 1 > math.min(free_jobs, math.max(share * max_jobs, 1))
  or own_bytes + cost > math.min(free_bytes, math.max(share * max_bytes, cost)) then
  return {'share', own_jobs, own_bytes}
end
-- What it stores now comes on top: the room is that of the last sample.
local promised, own_promised = tonumber(redis.call('GET', live[3]) or '0'), tonumber(own[3] or '0')
local free_room, needed = room - promised, promise + #payload
if needed > free_room then return {'no_room', promised} end
-- Nobody has stored more than Redis uses, so while that is little, it takes no look.
local own_stored = own_promised + used + needed > free_room and stored_bytes(KEYS[13], client) or 0
if own_promised + own_stored + needed > free_room then
  return {'room_share', own_promised, own_stored}
end
if KEYS[12] ~= '' then
  quota = look_at_quota(KEYS[12], max_requests_min, max_bytes_min)
  if quota.wait_s > 0 then
    return {'quota', quota.requests, quota.bytes, quota.wait_s}
  end
  quota = take_from_quota(KEYS[12], quota, cost, max_requests_min, max_bytes_min)
end

redis.call('SET', KEYS[1], record, 'EX', ttl)
redis.call('SET', KEYS[2], payload, 'EX', ttl)
add_live(live, id, cost, promise, client)
-- A client without another live job goes first, whatever others have queued.
enqueue(KEYS[4], KEYS[5], own_jobs == 0 and EXPRESS or client, message)
if KEYS[3] ~= '' then redis.call('SET', KEYS[3], idempotency, 'EX', idempotency_ttl) end
return {'accepted', jobs + 1, bytes + cost, quota.requests, quota.bytes}
