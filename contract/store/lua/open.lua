-- Begin jobs: mark those that are still wanted STARTED and hand out their payloads.
-- KEYS: record, payload, record, payload, ...
-- ARGV: of each job the field of its payload where that is a hash (the texts of a batch), else ''
-- Returns for each job {'open', payload}, {'lost', record} (no payload) or {'over'} (ended or erased).
local answers = {}
for i = 1, #KEYS, 2 do
  local record = redis.call('GET', KEYS[i])
  local state = record and string.match(string.sub(record, 1, 40), '"status":%s*"(%u+)"')
  if not state or state == 'SUCCESS' or state == 'FAILURE' or state == 'REVOKED' then
    answers[#answers + 1] = {'over'}
  else
    if state ~= 'STARTED' then
      local started = string.gsub(record, '"status":%s*"%u+"', '"status":"STARTED"', 1)
      redis.call('SET', KEYS[i], started, 'KEEPTTL')
    end
    local field = ARGV[(i + 1) / 2]
    local payload = field == '' and redis.call('GET', KEYS[i + 1])
      or field ~= '' and redis.call('HGET', KEYS[i + 1], field)
    answers[#answers + 1] = payload and {'open', payload} or {'lost', record}
  end
end
return answers
