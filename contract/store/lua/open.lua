#!lua flags=allow-oom
-- Begins jobs: notes them as suspects of the worker, should it die while it opens them; marks those
-- that are still wanted STARTED and hands out their payloads.
-- A job that is bound to no model is bound to that of the worker; one part binds its whole batch.
-- KEYS: aboard ('' if there is no worker), then record, payload and batch ('' if it is no part) of each
--       job
-- ARGV: fingerprint of the worker's model ('' to open jobs of any model), then of each job its task
--       ID, and the field of its payload where that is a hash (the texts of a batch), else ''
-- Returns for each job {'open', payload}, {'lost', record} (no payload), {'broken', record, payload}
-- (the record has no state), {'elsewhere', fingerprint} (bound to another model) or {'over'} (ended or
-- erased).
-- include: bound
local own = ARGV[1]

-- Returns the fingerprint that the job is bound to now, and its record.
local function bind(record, batch)
  if batch ~= '' then
    local bound = redis.call('HGET', batch, 'fingerprint')
    if bound and bound ~= '?' then return bound, record end
    if redis.call('EXISTS', batch) == 1 then redis.call('HSET', batch, 'fingerprint', own) end
    return own, record
  end
  local bound = bound_to(record)
  if bound then return bound, record end
  return own, (string.gsub(record, '"fingerprint":"%?"', '"fingerprint":"' .. own .. '"', 1))
end

if KEYS[1] ~= '' then redis.call('DEL', KEYS[1]) end
local answers = {}
for i = 2, #KEYS, 3 do
  local at = 2 + (i - 2) / 3 * 2
  local id, field = ARGV[at], ARGV[at + 1]
  if KEYS[1] ~= '' then redis.call('SADD', KEYS[1], id) end
  local record, bound, bound_record = redis.call('GET', KEYS[i]), own, nil
  local state = record and string.match(string.sub(record, 1, 40), '"status":%s*"(%u+)"')
  local is_over = not record or state == 'SUCCESS' or state == 'FAILURE' or state == 'REVOKED'
  bound_record = record
  if own ~= '' and not is_over and state then bound, bound_record = bind(record, KEYS[i + 2]) end
  if is_over then
    answers[#answers + 1] = {'over'}
  elseif bound ~= own then
    if KEYS[1] ~= '' then redis.call('SREM', KEYS[1], id) end
    answers[#answers + 1] = {'elsewhere', bound}
  else
    if state and state ~= 'STARTED' then
      local started = string.gsub(bound_record, '"status":%s*"%u+"', '"status":"STARTED"', 1)
      redis.call('SET', KEYS[i], started, 'KEEPTTL')
    end
    local payload = field == '' and redis.call('GET', KEYS[i + 1])
      or field ~= '' and redis.call('HGET', KEYS[i + 1], field)
    answers[#answers + 1] = not state and {'broken', record, payload or ''}
      or payload and {'open', payload} or {'lost', record}
  end
end
return answers
