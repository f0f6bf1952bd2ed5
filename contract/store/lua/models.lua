-- Checks whether the fingerprint that a web process believes current is still current. Its three
-- arguments are the name of the model, the fingerprint ('?' if none is known) and '1' if the request
-- named the fingerprint.
-- Returns the fingerprint that is current for the name, where that is another one.
local function superseded_by(models, fingerprints, name, fingerprint, is_pinned)
  if is_pinned == '1' then
    -- Workers look here for what waits for models that are gone.
    redis.call('SADD', fingerprints, fingerprint)
    return nil
  end
  local current = redis.call('HGET', models, name)
  return current and current ~= fingerprint and current or nil
end
