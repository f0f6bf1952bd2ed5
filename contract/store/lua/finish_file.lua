-- Makes a file of its pieces, and takes one request from the quota; safe to repeat.
-- KEYS: file, the three keys of files.lua, quota ('' if none)
-- ARGV: file ID, facts, TTL s, requests and bytes per minute
-- Returns {'finished', then requests and bytes left of the quota} or {'quota', requests and bytes left,
-- seconds to wait}.
-- include: files
-- include: quota
local id, facts, ttl = unpack(ARGV, 1, 3)
local max_requests, max_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
if redis.call('HEXISTS', KEYS[1], 'facts') == 1 then return {'finished'} end
local quota = {}
if KEYS[5] ~= '' then
  quota = look_at_quota(KEYS[5], max_requests, max_bytes)
  if quota.wait_s > 0 then return {'quota', quota.requests, quota.bytes, quota.wait_s} end
  -- The batch that is made of the file takes its bytes of work.
  quota = take_from_quota(KEYS[5], quota, 0, max_requests, max_bytes)
end
redis.call('HSET', KEYS[1], 'facts', facts)
redis.call('EXPIRE', KEYS[1], ttl)
keep_file({unpack(KEYS, 2, 4)}, id, redis.call('TIME')[1] + ttl)
return {'finished', quota.requests, quota.bytes}
