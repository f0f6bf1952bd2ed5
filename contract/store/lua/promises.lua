-- Gives back room that was promised to the results of a batch, at most what is left of its promise.
-- `promises` lists three keys: promised bytes of all jobs and batches, hash of what each batch has left,
-- counts of batches per client.
-- include: counts
local function give_back(promises, batch_id, client, bytes)
  local left = tonumber(redis.call('HGET', promises[2], batch_id) or '0')
  bytes = math.min(bytes, left)
  if bytes <= 0 then return end
  redis.call('DECRBY', promises[1], bytes)
  lower(promises[2], batch_id, bytes)
  if client then lower(promises[3], 'promised:' .. client, bytes) end
end
