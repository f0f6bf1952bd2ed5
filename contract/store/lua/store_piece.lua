-- Stores a piece of a file that is being received, or says why not; safe to repeat.
-- KEYS: file, the three keys of files.lua, promised bytes of all jobs and batches
-- ARGV: file ID, client, number of the piece, piece, TTL s, room for promises, most bytes of the files of
--       the client
-- Returns {'stored'}, {'no_room', promised bytes} or {'room_share', bytes of the files of the client}.
-- include: files
local files = {unpack(KEYS, 2, 4)}
local id, client, number, piece, ttl = unpack(ARGV, 1, 5)
local now = tonumber(redis.call('TIME')[1])
if redis.call('HEXISTS', KEYS[1], number) == 1 then return {'stored'} end
drop_expired_files(files, now)
local promised = tonumber(redis.call('GET', KEYS[5]) or '0')
local own = tonumber(redis.call('HGET', files[3], client) or '0')
local free_room = tonumber(ARGV[6]) - promised
if #piece > free_room then return {'no_room', promised} end
-- A client's files may take as much as is free, as in submit.lua.
if own + #piece > math.min(free_room, tonumber(ARGV[7])) then return {'room_share', own} end
redis.call('HSET', KEYS[1], number, piece)
-- What is received of a file that breaks off is deleted then.
redis.call('EXPIRE', KEYS[1], ttl)
add_file_bytes(files, id, #piece, client, now + ttl)
return {'stored'}
