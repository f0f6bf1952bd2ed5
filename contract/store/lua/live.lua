-- Functions that count live jobs: those that were accepted and have not ended.
-- `live` lists four keys: hash of live jobs, their bytes, their promised bytes, hash of counts per client.
-- An entry of the first hash is "bytes promised client"; release 0.1 wrote the bytes alone.
-- A command costs more than the Lua around it, so counts are read and written together.

local function fields_of(client) return 'jobs:' .. client, 'bytes:' .. client, 'promised:' .. client end

-- Returns what all clients hold (bytes, promised), and what one of them holds (jobs, bytes, promised).
local function look_at_live(live, client)
  local all = redis.call('MGET', live[2], live[3])
  local own = redis.call('HMGET', live[4], fields_of(client))
  return {bytes = tonumber(all[1] or '0'), promised = tonumber(all[2] or '0')},
    {jobs = tonumber(own[1] or '0'), bytes = tonumber(own[2] or '0'), promised = tonumber(own[3] or '0')}
end

-- Adds to counts as `look_at_live` returned them, or takes off them. The counts of 0 jobs go.
local function change_counts(live, client, all, own, num_jobs, bytes, promised)
  redis.call('MSET', live[2], all.bytes + bytes, live[3], all.promised + promised)
  local jobs_field, bytes_field, promised_field = fields_of(client)
  if own.jobs + num_jobs > 0 then
    redis.call('HSET', live[4], jobs_field, own.jobs + num_jobs, bytes_field,
      math.max(own.bytes + bytes, 0), promised_field, math.max(own.promised + promised, 0))
  else
    redis.call('HDEL', live[4], jobs_field, bytes_field, promised_field)
  end
end

-- Counts a job; `all` and `own` are what `look_at_live` returned.
local function add_live(live, id, bytes, promised, client, all, own)
  redis.call('HSET', live[1], id, table.concat({bytes, promised, client}, ' '))
  change_counts(live, client, all, own, 1, bytes, promised)
end

-- Takes jobs off the counts; those that are off already change nothing.
local function drop_live(live, ids)
  local sums_of = {}
  for _, id in ipairs(ids) do
    local entry = redis.call('HGET', live[1], id)
    if entry then
      redis.call('HDEL', live[1], id)
      local bytes, promised, client = string.match(entry, '^(%d+) (%d+) (.*)$')
      if bytes then
        local sums = sums_of[client] or {0, 0, 0}
        sums_of[client] = {sums[1] - 1, sums[2] - bytes, sums[3] - promised}
      else
        redis.call('DECRBY', live[2], entry)
      end
    end
  end
  for client, sums in pairs(sums_of) do
    local all, own = look_at_live(live, client)
    change_counts(live, client, all, own, unpack(sums))
  end
end
