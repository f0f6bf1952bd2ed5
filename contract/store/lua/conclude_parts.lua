#!lua flags=allow-oom
-- Ends parts of batches: stores the final record of each unless it has one or was erased, its lines
-- of results, and what it adds to its batch's counts; deletes its text, acknowledges its message.
-- Safe to repeat: whatever comes after the first final record changes nothing.
-- KEYS: live batches, totals, totals of batches, unacked, unacked index, aboard (the last three '' if
--       nothing is to be acknowledged), live lines, bulk load, cancelling, clients of batches, counts
--       per client, the two keys of promises.lua, forgettable since, stored (prefix), then of each part:
--       record, batch, texts, results, parts
-- ARGV: Unix time, result TTL s, then of each part: task ID, batch ID, first line, final record,
--       names of the counters in totals, lines, completed, failed, bytes, '1' if expired, model,
--       fingerprint of the model that scored it ('' if none did)
-- What a model scored that the batch is not bound to any more is dropped, and the part goes on.
-- Returns for each part the state that it is in now ('' if it is gone).
-- include: forgetting
-- include: promises
-- include: record
-- include: stored
local promises = {KEYS[12], KEYS[13], KEYS[11]}
local now, ttl = ARGV[1], tonumber(ARGV[2])

-- Ends a batch whose last line has ended: takes it off the live ones, and sets when it expires.
local function end_batch(id, batch, results, parts, client)
  redis.call('HSET', batch, 'ended_at', now, 'expires_at', now + ttl)
  redis.call('HDEL', KEYS[1], id)
  redis.call('HDEL', KEYS[7], id)
  if client then lower(KEYS[11], 'batches:' .. client, 1) end
  give_back(promises, id, client, math.huge)
  redis.call('HDEL', KEYS[10], id)
  redis.call('SREM', KEYS[9], id)
  -- What processes of another release miscounted ends here.
  if redis.call('HLEN', KEYS[1]) == 0 then redis.call('DEL', unpack(KEYS, 7, 11)) end
  local facts = redis.call('HMGET', batch, 'cancelling_at', 'has_expired_lines')
  local status = facts[1] and 'cancelled' or facts[2] and 'expired' or 'completed'
  redis.call('HINCRBY', KEYS[3], 'batches_' .. status, 1)
  for _, name in ipairs({batch, results, parts}) do redis.call('EXPIRE', name, ttl) end
end

local states = {}
for i = 16, #KEYS, 5 do
  local at = 3 + (i - 16) / 5 * 12
  local id, batch_id, first, final = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local record, batch, texts, results, parts = unpack(KEYS, i, i + 4)
  local stored = redis.call('GET', record)
  -- A record without a state cannot be read; the final record takes its place.
  local state = stored and (state_of(stored) or '?') or ''
  local ended = is_final(state)
  local bound = redis.call('HGET', batch, 'fingerprint') or '?'
  local is_elsewhere = not ended and ARGV[at + 11] ~= '' and bound ~= '?' and bound ~= ARGV[at + 11]
  if state ~= '' and not ended and not is_elsewhere and redis.call('EXISTS', batch) == 1 then
    redis.call('SET', record, final, 'EX', ttl)
    for counter in string.gmatch(ARGV[at + 4], '%S+') do redis.call('HINCRBY', KEYS[2], counter, 1) end
    redis.call('HSET', results, first, ARGV[at + 5])
    redis.call('EXPIRE', results, redis.call('TTL', batch))
    local num_stored = #final + #ARGV[at + 5]
    count_stored_part(KEYS[15], batch, redis.call('EXPIRETIME', record), ttl, num_stored)
    redis.call('HINCRBY', batch, 'completed', ARGV[at + 6])
    redis.call('HINCRBY', batch, 'failed', ARGV[at + 7])
    redis.call('HINCRBY', KEYS[3], 'lines_completed', ARGV[at + 6])
    redis.call('HINCRBY', KEYS[3], 'lines_failed', ARGV[at + 7])
    redis.call('HINCRBY', KEYS[1], batch_id, -ARGV[at + 8])
    local client = redis.call('HGET', KEYS[10], batch_id)
    if client then lower(KEYS[11], 'bytes:' .. client, ARGV[at + 8]) end
    local part = redis.call('ZRANGEBYSCORE', parts, first, first)[1] or ''
    give_back(promises, batch_id, client, tonumber(string.match(part, '^%d+:%d+:%d+:(%d+)') or '0'))
    -- A batch without lines here was accepted by an older web server, which counted nothing.
    if redis.call('HEXISTS', KEYS[7], batch_id) == 1 then
      local lines = ARGV[at + 6] + ARGV[at + 7]
      redis.call('HINCRBY', KEYS[7], batch_id, -lines)
      redis.call('HINCRBY', KEYS[8], 'lines', -lines)
      redis.call('HINCRBY', KEYS[8], 'bytes', -ARGV[at + 8])
    end
    if ARGV[at + 9] == '1' then redis.call('HSET', batch, 'has_expired_lines', 1) end
    if ARGV[at + 10] ~= '' then redis.call('HSET', batch, 'model', ARGV[at + 10]) end
    local counts = redis.call('HMGET', batch, 'total', 'completed', 'failed')
    if tonumber(counts[2]) + tonumber(counts[3]) >= tonumber(counts[1]) then
      end_batch(batch_id, batch, results, parts, client)
    end
    redis.call('PUBLISH', batch, part)
    state = state_of(final)
  end
  if state ~= '' and not is_elsewhere and redis.call('HDEL', texts, first) == 1 then
    note_deleted(KEYS[14])
  end
  if KEYS[4] ~= '' then
    redis.call('HDEL', KEYS[4], id)
    redis.call('ZREM', KEYS[5], id)
  end
  states[#states + 1] = state
end
if KEYS[6] ~= '' then redis.call('DEL', KEYS[6]) end
return states
