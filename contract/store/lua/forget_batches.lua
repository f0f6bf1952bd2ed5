#!lua flags=allow-oom
-- Takes batches off the live ones: those that were erased, or that expired before they ended.
-- KEYS: live batches, live lines, bulk load, unpublished, cancelling, clients of batches, counts per
--       client, the two keys of promises.lua, forgettable since, stored (prefix), batch (prefix)
-- ARGV: result TTL s, then batch IDs
-- include: forgetting
-- include: promises
-- include: stored
note_deleted(KEYS[10])
for i = 2, #ARGV do
  local id = ARGV[i]
  local bytes, lines = redis.call('HGET', KEYS[1], id), redis.call('HGET', KEYS[2], id)
  -- A batch without lines here was accepted by an older web server, which counted nothing.
  if bytes and lines then
    redis.call('HINCRBY', KEYS[3], 'bytes', -bytes)
    redis.call('HINCRBY', KEYS[3], 'lines', -lines)
  end
  local client = redis.call('HGET', KEYS[6], id)
  if bytes and client then
    lower(KEYS[7], 'bytes:' .. client, tonumber(bytes))
    lower(KEYS[7], 'batches:' .. client, 1)
  end
  give_back({KEYS[8], KEYS[9], KEYS[7]}, id, client, math.huge)
  drop_stored_batch(KEYS[11], KEYS[12] .. id, ARGV[1])
  redis.call('HDEL', KEYS[6], id)
  redis.call('HDEL', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
  redis.call('SREM', KEYS[4], id)
  redis.call('SREM', KEYS[5], id)
end
-- What processes of another release miscounted ends here.
if redis.call('HLEN', KEYS[1]) == 0 then redis.call('DEL', KEYS[2], KEYS[3], unpack(KEYS, 5, 7)) end
