-- Accepts a job, or says why not, in one step: record, payload, queue message and counts are
-- written together or not at all.
-- KEYS: record, payload, idempotency ('' if none), turns, waiting (prefix), then the four keys of
--       live.lua, models, fingerprints
-- ARGV: record, payload, message, task ID, bytes, promised bytes, channel, client, record TTL s,
--       max jobs, max bytes, idempotency value, idempotency TTL s, room for promises, then the three of
--       models.lua
-- Returns {verdict, live jobs, live bytes}, {'no_room', promised bytes}, {'room_share', promised bytes
-- of the client}, {'replay', idempotency value} or {'rebind', fingerprint}.
-- include: live
-- include: models
-- include: queue
local live = {unpack(KEYS, 6, 9)}
local id, cost, client = ARGV[4], tonumber(ARGV[5]), ARGV[8]
if KEYS[3] ~= '' then
  local earlier = redis.call('GET', KEYS[3])
  if earlier then return {'replay', earlier} end
end
local jobs = redis.call('HLEN', live[1])
local bytes = tonumber(redis.call('GET', live[2]) or '0')
if redis.call('EXISTS', KEYS[1]) == 1 then
  -- The ID is fresh and random, so this is our own try, repeated after a lost reply.
  return {'accepted', jobs, bytes}
end
local other = superseded_by(KEYS[10], KEYS[11], ARGV[15], ARGV[16], ARGV[17])
if other then return {'rebind', other} end
local free_jobs, free_bytes = tonumber(ARGV[10]) - jobs, tonumber(ARGV[11]) - bytes
if free_jobs < 1 or cost > free_bytes then return {'full', jobs, bytes} end
-- A client may hold as much as is free. So one client alone fills half of the queue.
local own = redis.call('HMGET', live[4], 'jobs:' .. client, 'bytes:' .. client, 'promised:' .. client)
local own_jobs, own_bytes = tonumber(own[1] or '0'), tonumber(own[2] or '0')
if own_jobs + 1 > free_jobs or own_bytes + cost > free_bytes then
  return {'share', own_jobs, own_bytes}
end
-- What it stores now comes on top: the room is that of the last sample.
local promised, own_promised = tonumber(redis.call('GET', live[3]) or '0'), tonumber(own[3] or '0')
local free_room, needed = tonumber(ARGV[14]) - promised, ARGV[6] + #ARGV[2]
if needed > free_room then return {'no_room', promised} end
if own_promised + needed > free_room then return {'room_share', own_promised} end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[9])
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[9])
add_live(live, id, ARGV[5], ARGV[6], ARGV[7], client)
-- A client that has nothing else waiting goes first, whatever others have queued.
enqueue(KEYS[4], KEYS[5], own_jobs == 0 and EXPRESS or client, ARGV[3])
if KEYS[3] ~= '' then redis.call('SET', KEYS[3], ARGV[12], 'EX', ARGV[13]) end
return {'accepted', jobs + 1, bytes + cost}
