-- Notes that something of a user was deleted: files of Redis still have it (contract/store/forgetting.py).
-- The note is the time of the first deletion since the files were last rewritten.
local function note_deleted(forgettable_since)
  if redis.call('EXISTS', forgettable_since) == 0 then
    redis.call('SET', forgettable_since, redis.call('TIME')[1])
  end
end
