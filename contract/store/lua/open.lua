#!lua flags=allow-oom
-- Begin jobs: note them as suspects of the worker, should it die while it opens them; mark those that
-- are still wanted STARTED and hand out their payloads.
-- KEYS: aboard ('' if there is no worker), then record and payload of each job
-- ARGV: of each job its task ID, and the field of its payload where that is a hash (the texts of a
--       batch), else ''
-- Returns for each job {'open', payload}, {'lost', record} (no payload), {'broken', record, payload}
-- (the record has no state) or {'over'} (ended or erased).
if KEYS[1] ~= '' then redis.call('DEL', KEYS[1]) end
local answers = {}
for i = 2, #KEYS, 2 do
  if KEYS[1] ~= '' then redis.call('SADD', KEYS[1], ARGV[i - 1]) end
  local record, field = redis.call('GET', KEYS[i]), ARGV[i]
  local state = record and string.match(string.sub(record, 1, 40), '"status":%s*"(%u+)"')
  if not record or state == 'SUCCESS' or state == 'FAILURE' or state == 'REVOKED' then
    answers[#answers + 1] = {'over'}
  else
    if state and state ~= 'STARTED' then
      local started = string.gsub(record, '"status":%s*"%u+"', '"status":"STARTED"', 1)
      redis.call('SET', KEYS[i], started, 'KEEPTTL')
    end
    local payload = field == '' and redis.call('GET', KEYS[i + 1])
      or field ~= '' and redis.call('HGET', KEYS[i + 1], field)
    answers[#answers + 1] = not state and {'broken', record, payload or ''}
      or payload and {'open', payload} or {'lost', record}
  end
end
return answers
