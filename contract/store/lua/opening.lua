-- Opens one job for a worker.
-- include: record

-- Returns the fingerprint that the job is bound to now, and its record.
local function bind(own, record, batch)
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

-- Notes the job as a suspect of the worker, should it die; marks it STARTED if it is still wanted.
-- aboard: key of the suspects ('' if there is no worker)    own: fingerprint of the worker's model ('' to
--   open a job of any model)    id: task ID    record, payload: their keys    field: of the payload where
--   that is a hash (the texts of a batch), else ''    batch: key of its batch ('' if it is no part)
-- Returns {'open', payload}, {'lost', record} (no payload), {'broken', record, payload} (the record has no
-- state), {'elsewhere', fingerprint} (bound to another model) or {'over'} (ended or erased).
local function open_job(aboard, own, id, record, payload, field, batch)
  if aboard ~= '' then redis.call('SADD', aboard, id) end
  local stored = redis.call('GET', record)
  local state = stored and state_of(stored)
  if not stored or is_final(state) then return {'over'} end
  local bound, bound_record = own, stored
  if own ~= '' and state then bound, bound_record = bind(own, stored, batch) end
  if bound ~= own then
    if aboard ~= '' then redis.call('SREM', aboard, id) end
    return {'elsewhere', bound}
  end
  if state and state ~= 'STARTED' then
    local started = string.gsub(bound_record, '"status":%s*"%u+"', '"status":"STARTED"', 1)
    redis.call('SET', record, started, 'KEEPTTL')
  end
  local found = field == '' and redis.call('GET', payload)
    or field ~= '' and redis.call('HGET', payload, field)
  if not state then return {'broken', stored, found or ''} end
  return found and {'open', found} or {'lost', stored}
end
