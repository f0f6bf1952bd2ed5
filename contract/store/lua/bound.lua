-- Returns the fingerprint of the model that a record binds its job to, or nil if it binds it to none.
local function bound_to(record)
  local _, at = string.find(record, '"fingerprint":"', 1, true)
  return at and string.match(record, '^%x+', at + 1)
end
