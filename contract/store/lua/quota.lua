-- Functions of the quota of an API key: two buckets, of requests and of bytes of work. A bucket holds the
-- quota of one minute at most and fills steadily. A request passes while both hold something; it may
-- leave a debt of bytes, so that a text larger than the quota passes, too. A quota of 0 is no limit.
-- The keys of one owner share the buckets: a key without one of the limits leaves that bucket as it is.

-- Returns what each bucket holds now, and the whole seconds until a request passes (0 if it passes now).
-- Redis cuts off the fractions of what the buckets hold when a script returns them.
local function look_at_quota(bucket, max_requests, max_bytes)
  local time = redis.call('TIME')
  local now = time[1] + time[2] / 1e6
  local quota = {now = now, wait_s = 0}
  for name, max in pairs({requests = max_requests, bytes = max_bytes}) do
    -- An earlier release has one time for both buckets.
    local held = redis.call('HMGET', bucket, name, name .. '_at', 'at')
    local at = tonumber(held[2] or held[3]) or now
    if at > now then
      -- The clock of Redis was ahead: the bucket fills from now on.
      at = now
      redis.call('HSET', bucket, name .. '_at', string.format('%.6f', now))
    end
    local minutes = (now - at) / 60
    quota[name] = max > 0 and math.min(max, (tonumber(held[1]) or max) + minutes * max) or 0
    if max > 0 and quota[name] < 1 then
      quota.wait_s = math.max(quota.wait_s, math.ceil((1 - quota[name]) * 60 / max))
    end
  end
  return quota
end

-- Takes one request and its bytes. Returns what the buckets hold afterwards.
local function take_from_quota(bucket, quota, bytes, max_requests, max_bytes)
  for name, taken in pairs({requests = {1, max_requests}, bytes = {bytes, max_bytes}}) do
    local count, max = unpack(taken)
    if max > 0 then
      quota[name] = quota[name] - count
      redis.call('HSET', bucket, name, tostring(quota[name]),
        name .. '_at', string.format('%.6f', quota.now))
      -- Until it is full again, a debt included.
      local full_s = math.ceil(math.max(1 - quota[name] / max, 1) * 60) + 1
      if full_s > redis.call('TTL', bucket) then redis.call('EXPIRE', bucket, full_s) end
    end
  end
  return quota
end
