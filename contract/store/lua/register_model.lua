#!lua flags=allow-oom
-- Registers a model and its queue in one step, so that its work is found after its last worker is gone.
-- KEYS: models, fingerprints    ARGV: name, fingerprint, the current fingerprint of the name that it
--       replaces ('any', or '' to replace none)
-- Returns 1 if the fingerprint became current now, else 0.
redis.call('SADD', KEYS[2], ARGV[2])
local current = redis.call('HGET', KEYS[1], ARGV[1])
if current and ARGV[3] ~= 'any' and ARGV[3] ~= current then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
