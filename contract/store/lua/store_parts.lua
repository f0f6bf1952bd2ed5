-- Stores parts of an upload, or says why not; safe to repeat. Without parts it keeps the upload for longer,
-- unless Redis is over its limit.
-- KEYS: texts, parts, the three keys of files.lua for uploads, promised bytes of all jobs and batches
-- ARGV: batch ID, client, TTL s, room for promises, then of each part: first line, payload, member of parts
-- Returns {'stored'}, {'no_room', promised bytes} or {'room_share', bytes of the uploads of the client}.
-- include: files
local uploads = {unpack(KEYS, 3, 5)}
local id, client, ttl, room = unpack(ARGV, 1, 4)
local now = tonumber(redis.call('TIME')[1])
drop_expired_files(uploads, now)
local bytes, new_bytes = 0, 0
for i = 6, #ARGV, 3 do bytes = bytes + #ARGV[i] end
local promised = tonumber(redis.call('GET', KEYS[6]) or '0')
local own = tonumber(redis.call('HGET', uploads[3], client) or '0')
local free_room = tonumber(room) - promised
if bytes > free_room then return {'no_room', promised} end
-- A client's uploads may take as much as is free, as in submit.lua.
if bytes > 0 and own + bytes > free_room then return {'room_share', own} end
for i = 5, #ARGV, 3 do
  local first, payload, part = unpack(ARGV, i, i + 2)
  if redis.call('HSET', KEYS[1], first, payload) == 1 then new_bytes = new_bytes + #payload end
  redis.call('ZADD', KEYS[2], first, part)
end
for i = 1, 2 do redis.call('EXPIRE', KEYS[i], ttl) end
add_file_bytes(uploads, id, new_bytes, client, now + ttl)
return {'stored'}
