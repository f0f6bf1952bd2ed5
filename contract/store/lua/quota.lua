-- Functions of the quota of an API key: two buckets, of requests and of bytes of work. A bucket holds the
-- quota of one minute at most and fills steadily. A request passes while both hold something; it may
-- leave a debt of bytes, so that a text larger than the quota passes, too. A quota of 0 is no limit.

-- Returns what each bucket holds now, and the whole seconds until a request passes (0 if it passes now).
-- Redis cuts off the fractions of what the buckets hold when a script returns them.
local function look_at_quota(bucket, max_requests, max_bytes)
  local time = redis.call('TIME')
  local now = time[1] + time[2] / 1e6
  local found = redis.call('HMGET', bucket, 'requests', 'bytes', 'at')
  local minutes = math.max(now - (tonumber(found[3]) or now), 0) / 60
  local requests = math.min(max_requests, (tonumber(found[1]) or max_requests) + minutes * max_requests)
  local bytes = math.min(max_bytes, (tonumber(found[2]) or max_bytes) + minutes * max_bytes)
  local wait_s = 0
  if max_requests > 0 and requests < 1 then wait_s = (1 - requests) * 60 / max_requests end
  if max_bytes > 0 and bytes < 1 then wait_s = math.max(wait_s, (1 - bytes) * 60 / max_bytes) end
  return {requests = requests, bytes = bytes, now = now, wait_s = math.ceil(wait_s)}
end

-- Takes one request and its bytes. Returns what the buckets hold afterwards.
local function take_from_quota(bucket, found, bytes, max_bytes)
  local left = {requests = found.requests - 1, bytes = found.bytes - (max_bytes > 0 and bytes or 0)}
  redis.call('HSET', bucket, 'requests', tostring(left.requests), 'bytes', tostring(left.bytes),
    'at', string.format('%.6f', found.now))
  -- Until both buckets are full again, a debt included.
  local minutes = max_bytes > 0 and math.max(1 - left.bytes / max_bytes, 1) or 1
  redis.call('EXPIRE', bucket, math.ceil(minutes * 60) + 1)
  return left
end
