#!lua flags=allow-oom
-- Takes an upload that has ended off the counts; repeating it is harmless.
-- KEYS: the three keys of files.lua for uploads    ARGV: batch ID
-- include: files
drop_file(KEYS, ARGV[1])
