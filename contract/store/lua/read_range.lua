-- Reads a range of a field of a hash, as GETRANGE reads one of a string.
-- KEYS: hash    ARGV: field, first byte, last byte, both from 0
-- Returns the bytes, '' beyond the end or if there is no such field.
local value = redis.call('HGET', KEYS[1], ARGV[1])
return value and string.sub(value, ARGV[2] + 1, ARGV[3] + 1) or ''
