-- Takes one request from a quota, whatever is left of it.
-- KEYS: quota    ARGV: requests and bytes per minute
-- Returns {requests left, bytes left}.
-- include: quota
local max_requests, max_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local quota = look_at_quota(KEYS[1], max_requests, max_bytes)
local left = take_from_quota(KEYS[1], quota, 0, max_requests, max_bytes)
return {left.requests, left.bytes}
