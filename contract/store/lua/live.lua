-- Functions that count live jobs: those that were accepted and have not ended.
-- `live` lists four keys: hash of live jobs, their bytes, their promised bytes, hash of counts per client.
-- An entry of the first hash is "bytes promised client"; release 0.1 wrote the bytes alone.
-- include: counts

local function add_live(live, id, bytes, promised, client)
  redis.call('HSET', live[1], id, table.concat({bytes, promised, client}, ' '))
  redis.call('INCRBY', live[2], bytes)
  redis.call('INCRBY', live[3], promised)
  redis.call('HINCRBY', live[4], 'jobs:' .. client, 1)
  redis.call('HINCRBY', live[4], 'bytes:' .. client, bytes)
  redis.call('HINCRBY', live[4], 'promised:' .. client, promised)
end

local function drop_live(live, id)
  local entry = redis.call('HGET', live[1], id)
  if not entry then return end
  redis.call('HDEL', live[1], id)
  local bytes, promised, client = string.match(entry, '^(%d+) (%d+) (.*)$')
  redis.call('DECRBY', live[2], bytes or entry)
  if not bytes then return end
  redis.call('DECRBY', live[3], promised)
  lower(live[4], 'jobs:' .. client, 1)
  lower(live[4], 'bytes:' .. client, tonumber(bytes))
  lower(live[4], 'promised:' .. client, tonumber(promised))
end
