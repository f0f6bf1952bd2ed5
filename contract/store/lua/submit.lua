-- Accept a job, or say why not, in one step: record, payload, queue message and counts are
-- written together or not at all.
-- KEYS: record, payload, queue list, live jobs, live bytes, idempotency ('' if none)
-- ARGV: record, payload, message, task ID, bytes, record TTL s, max jobs, max bytes,
--       idempotency value, idempotency TTL s
-- Returns {verdict, live jobs, live bytes} or {'replay', idempotency value}.
if KEYS[6] ~= '' then
  local earlier = redis.call('GET', KEYS[6])
  if earlier then return {'replay', earlier} end
end
local jobs = redis.call('HLEN', KEYS[4])
local bytes = tonumber(redis.call('GET', KEYS[5]) or '0')
if redis.call('EXISTS', KEYS[1]) == 1 then
  -- The ID is fresh and random, so this is our own try, repeated after a lost reply.
  return {'accepted', jobs, bytes}
end
if jobs >= tonumber(ARGV[7]) or bytes + tonumber(ARGV[5]) > tonumber(ARGV[8]) then
  return {'full', jobs, bytes}
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[6])
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[6])
redis.call('HSET', KEYS[4], ARGV[4], ARGV[5])
redis.call('INCRBY', KEYS[5], ARGV[5])
redis.call('LPUSH', KEYS[3], ARGV[3])
if KEYS[6] ~= '' then redis.call('SET', KEYS[6], ARGV[9], 'EX', ARGV[10]) end
return {'accepted', jobs + 1, bytes + tonumber(ARGV[5])}
