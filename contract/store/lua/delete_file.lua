#!lua flags=allow-oom
-- Deletes a file and what counts it.
-- KEYS: file, the three keys of files.lua, forgettable since    ARGV: file ID
-- include: files
-- include: forgetting
redis.call('UNLINK', KEYS[1])
drop_file({unpack(KEYS, 2, 4)}, ARGV[1])
note_deleted(KEYS[5])
