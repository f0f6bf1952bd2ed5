-- Functions that read the JSON of a record.

-- Returns the state, which stands in the first 40 bytes, or nil if the record has none: it cannot be read.
local function state_of(record)
  return string.match(string.sub(record, 1, 40), '"status":%s*"(%u+)"')
end

local function is_final(state)
  return state == 'SUCCESS' or state == 'FAILURE' or state == 'REVOKED'
end

-- Returns the fingerprint of the model that the job is bound to, or nil if it is bound to none.
local function bound_to(record)
  local _, at = string.find(record, '"fingerprint":"', 1, true)
  return at and string.match(record, '^%x+', at + 1)
end
