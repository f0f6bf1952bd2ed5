-- Keeps a dead letter; while there are too many, the oldest is dropped.
-- KEYS: letters, raws, forgettable since
-- ARGV: most letters, raw bytes ('' to keep none), then names and values of its facts
-- include: forgetting
local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
if ARGV[2] ~= '' then redis.call('HSET', KEYS[2], id, ARGV[2]) end
while redis.call('XLEN', KEYS[1]) > tonumber(ARGV[1]) do
  local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1]
  note_deleted(KEYS[3])
  redis.call('XDEL', KEYS[1], oldest)
  redis.call('HDEL', KEYS[2], oldest)
end
