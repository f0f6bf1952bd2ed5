-- Functions that count what the files, or the uploads of batches, of each client take of Redis.
-- `files` lists three keys: sorted set of files by the Unix time at which they expire, hash of files with
-- "bytes client" of each, hash of bytes per client.
-- include: counts

local function drop_file(files, id)
  local bytes, client = string.match(redis.call('HGET', files[2], id) or '', '^(%d+) (.*)$')
  if bytes then lower(files[3], client, tonumber(bytes)) end
  redis.call('HDEL', files[2], id)
  redis.call('ZREM', files[1], id)
end

local function keep_file(files, id, expires_at)
  redis.call('ZADD', files[1], expires_at, id)
  -- Without files nothing is left of their clients.
  local last = redis.call('ZRANGE', files[1], -1, -1, 'WITHSCORES')[2]
  for i = 1, 3 do redis.call('EXPIREAT', files[i], last) end
end

local function add_file_bytes(files, id, bytes, client, expires_at)
  local counted = string.match(redis.call('HGET', files[2], id) or '', '^%d+') or 0
  redis.call('HSET', files[2], id, string.format('%d %s', counted + bytes, client))
  redis.call('HINCRBY', files[3], client, bytes)
  keep_file(files, id, expires_at)
end

-- Redis does not say which keys expired. Each call takes a few of them off, more than it adds.
local function drop_expired_files(files, now)
  for _, id in ipairs(redis.call('ZRANGE', files[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, 16)) do
    drop_file(files, id)
  end
end
