#!lua flags=allow-oom
-- Keeps a file for longer; one that was deleted meanwhile stays deleted.
-- KEYS: file, the three keys of files.lua    ARGV: file ID, Unix time at which it expires, s, its facts
-- include: files
if redis.call('EXPIREAT', KEYS[1], ARGV[2], 'GT') == 1 then
  redis.call('HSET', KEYS[1], 'facts', ARGV[3])
  keep_file({unpack(KEYS, 2, 4)}, ARGV[1], tonumber(ARGV[2]))
end
