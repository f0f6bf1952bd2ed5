-- Gives back room that was promised to the results of a batch; what it was not promised stays.
-- `promises` lists two keys: promised bytes of all jobs and batches, hash of what each batch has left.
-- include: counts
local function give_back(promises, batch_id, bytes)
  local left = tonumber(redis.call('HGET', promises[2], batch_id) or '0')
  bytes = math.min(bytes, left)
  if bytes <= 0 then return end
  redis.call('DECRBY', promises[1], bytes)
  lower(promises[2], batch_id, bytes)
end
