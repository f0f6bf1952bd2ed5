#!lua flags=allow-oom
-- Begins jobs: notes them as suspects of the worker, should it die while it opens them; marks those
-- that are still wanted STARTED and hands out their payloads.
-- A job that is bound to no model is bound to that of the worker; one part binds its whole batch.
-- KEYS: aboard ('' if there is no worker), then record, payload and batch ('' if it is no part) of each
--       job
-- ARGV: fingerprint of the worker's model ('' to open jobs of any model), then of each job its task
--       ID, and the field of its payload where that is a hash (the texts of a batch), else ''
-- Returns of each job what `open_job` returns.
-- include: opening
if KEYS[1] ~= '' then redis.call('DEL', KEYS[1]) end
local answers = {}
for i = 2, #KEYS, 3 do
  local at = 2 + (i - 2) / 3 * 2
  local id, field = ARGV[at], ARGV[at + 1]
  local record, payload, batch = unpack(KEYS, i, i + 2)
  answers[#answers + 1] = open_job(KEYS[1], ARGV[1], id, record, payload, field, batch)
end
return answers
