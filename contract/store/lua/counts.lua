-- Lowers a field of a hash of counts; at 0 the field goes.
local function lower(hash, field, count)
  if redis.call('HINCRBY', hash, field, -count) <= 0 then redis.call('HDEL', hash, field) end
end
