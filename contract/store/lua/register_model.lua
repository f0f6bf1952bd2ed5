#!lua flags=allow-oom
-- Registers a model and its queue in one step, so that its work is found after its last worker is gone.
-- KEYS: models, fingerprints    ARGV: name, fingerprint, '1' to replace the current fingerprint of the
--       name, '0' to register it only if the name has none
redis.call('SADD', KEYS[2], ARGV[2])
redis.call(ARGV[3] == '1' and 'HSET' or 'HSETNX', KEYS[1], ARGV[1], ARGV[2])
