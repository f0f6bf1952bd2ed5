#!lua flags=allow-oom
-- End jobs: store each final record and result unless the job has one or was erased, tell its
-- waiters, delete its payload, take it off the counts, and acknowledge its message, all in one step.
-- Safe to repeat.
-- KEYS: live jobs, live bytes, totals, unacked, unacked index, aboard (the last three '' if nothing
--       is to be acknowledged), then record, payload and result of each job
-- ARGV: result TTL s, then of each job: task ID, final record ('' to acknowledge only),
--       name of the counter in totals, result ('' if the record holds it)
-- Returns for each job the state that it is in now ('' if it is gone).
local states = {}
for i = 7, #KEYS, 3 do
  local at = 2 + (i - 7) / 3 * 4
  local id, final = ARGV[at], ARGV[at + 1]
  local record = redis.call('GET', KEYS[i])
  -- A record without a state cannot be read; the final record takes its place.
  local state = record and (string.match(string.sub(record, 1, 40), '"status":%s*"(%u+)"') or '?')
    or ''
  local ended = state == 'SUCCESS' or state == 'FAILURE' or state == 'REVOKED'
  if final ~= '' and state ~= '' and not ended then
    redis.call('SET', KEYS[i], final, 'EX', ARGV[1])
    if ARGV[at + 3] ~= '' then redis.call('SET', KEYS[i + 2], ARGV[at + 3], 'EX', ARGV[1]) end
    redis.call('PUBLISH', KEYS[i], final)
    redis.call('HINCRBY', KEYS[3], ARGV[at + 2], 1)
    state = string.match(string.sub(final, 1, 40), '"status":%s*"(%u+)"')
    ended = true
  end
  if ended or state == '' then
    redis.call('DEL', KEYS[i + 1])
    local bytes = redis.call('HGET', KEYS[1], id)
    if bytes then
      redis.call('HDEL', KEYS[1], id)
      redis.call('DECRBY', KEYS[2], bytes)
    end
  end
  if KEYS[4] ~= '' then
    redis.call('HDEL', KEYS[4], id)
    redis.call('ZREM', KEYS[5], id)
  end
  states[#states + 1] = state
end
if KEYS[6] ~= '' then redis.call('DEL', KEYS[6]) end
return states
