-- Notes the fields that only OpenAI's batches have, unless the batch is gone; what was noted before stays.
-- KEYS: batch    ARGV: the fields
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSETNX', KEYS[1], 'openai', ARGV[1]) end
