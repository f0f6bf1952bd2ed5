#!lua flags=allow-oom
-- Ends jobs: stores each final record and result unless the job has one or was erased, tells its
-- waiters, deletes its payload, takes it off the counts, and acknowledges its message, all in one
-- step. Safe to repeat.
-- KEYS: totals, unacked, unacked index, aboard (the last three '' if nothing is to be acknowledged),
--       the four keys of live.lua, forgettable since, stored (prefix), then record, payload and
--       result of each job
-- ARGV: result TTL s, then of each job: task ID, final record ('' to acknowledge only),
--       names of the counters in totals, result ('' if the record holds it), fingerprint of the model
--       that scored it ('' if none did)
-- What a model scored that the job is not bound to any more is dropped, and the job goes on.
-- Returns for each job the state that it is in now ('' if it is gone).
-- include: forgetting
-- include: live
-- include: record
-- include: stored
local live = {unpack(KEYS, 5, 8)}
local states = {}
for i = 11, #KEYS, 3 do
  local at = 2 + (i - 11) / 3 * 5
  local id, final = ARGV[at], ARGV[at + 1]
  local record = redis.call('GET', KEYS[i])
  -- A record without a state cannot be read; the final record takes its place.
  local state = record and (state_of(record) or '?') or ''
  local ended = is_final(state)
  local bound = state ~= '' and not ended and ARGV[at + 4] ~= '' and bound_to(record)
  local is_elsewhere = bound and bound ~= ARGV[at + 4]
  local ends_now = final ~= '' and state ~= '' and not ended and not is_elsewhere
  if ends_now then
    redis.call('SET', KEYS[i], final, 'EX', ARGV[1])
    if ARGV[at + 3] ~= '' then redis.call('SET', KEYS[i + 2], ARGV[at + 3], 'EX', ARGV[1]) end
    count_stored_job(KEYS[10], KEYS[i], final, ARGV[1], #final + #ARGV[at + 3])
    for counter in string.gmatch(ARGV[at + 2], '%S+') do redis.call('HINCRBY', KEYS[1], counter, 1) end
    state = state_of(final)
  end
  if ended or ends_now or state == '' then
    if redis.call('DEL', KEYS[i + 1]) == 1 then note_deleted(KEYS[9]) end
    drop_live(live, id)
    if ends_now then redis.call('PUBLISH', KEYS[i], final) end
  end
  if KEYS[2] ~= '' then
    redis.call('HDEL', KEYS[2], id)
    redis.call('ZREM', KEYS[3], id)
  end
  states[#states + 1] = state
end
if KEYS[4] ~= '' then redis.call('DEL', KEYS[4]) end
return states
