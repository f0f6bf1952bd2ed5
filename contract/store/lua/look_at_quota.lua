#!lua flags=allow-oom
-- Tells what is left of a quota, and takes nothing.
-- KEYS: quota    ARGV: requests and bytes per minute
-- Returns {requests left, bytes left, seconds until a request passes}.
-- include: quota
local found = look_at_quota(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]))
return {found.requests, found.bytes, found.wait_s}
