-- Functions that count what each client has stored: records and results of what has ended.
-- `stored` is a prefix of keys. The time that a result is kept has 24 periods. What expires in the same
-- period is counted by one key, which expires at its end: whatever happens, nothing is counted for ever.
-- At most 26 periods have a key at any time, so their numbers are used in turns.
local NUM_PERIODS, NUM_NUMBERS = 24, 26

-- Adds bytes that expire at a Unix time; negative ones were erased before.
local function count_stored(stored, client, expires_at, ttl, bytes)
  local period_s = math.ceil(ttl / NUM_PERIODS)
  local period = math.ceil(expires_at / period_s)
  local key = stored .. client .. ':' .. period % NUM_NUMBERS
  local counted = redis.call('INCRBY', key, bytes)
  if counted <= 0 then redis.call('DEL', key) end
  if counted == bytes then redis.call('EXPIREAT', key, period * period_s) end
end

-- Counts a job by its final record and the key of that. Records of earlier releases name no client.
local function count_stored_job(stored, key, record, ttl, bytes)
  local _, at = string.find(record, '"job":{"client":"', 1, true)
  if not at then return end
  local client = string.match(record, '^[^"]*', at + 1)
  count_stored(stored, client, redis.call('EXPIRETIME', key), ttl, bytes)
end

-- Counts what a part, or metadata, adds to its batch. All that a batch has stored expires a TTL after its
-- last part.
local function count_stored_part(stored, batch, expires_at, ttl, bytes)
  local facts = redis.call('HMGET', batch, 'client', 'stored_bytes', 'stored_until')
  local client, before = facts[1] or '', tonumber(facts[2] or '0')
  count_stored(stored, client, expires_at, ttl, before + bytes)
  if before > 0 then count_stored(stored, client, facts[3], ttl, -before) end
  redis.call('HSET', batch, 'stored_bytes', before + bytes, 'stored_until', expires_at)
end

-- Takes off what a batch has stored, before the batch is erased.
local function drop_stored_batch(stored, batch, ttl)
  local facts = redis.call('HMGET', batch, 'client', 'stored_bytes', 'stored_until')
  if facts[2] then count_stored(stored, facts[1] or '', facts[3], ttl, -facts[2]) end
end

-- Returns the bytes that a client has stored.
local function stored_bytes(stored, client)
  local numbers, sum = {}, 0
  for number = 0, NUM_NUMBERS - 1 do numbers[number + 1] = stored .. client .. ':' .. number end
  for _, bytes in ipairs(redis.call('MGET', unpack(numbers))) do sum = sum + (bytes or 0) end
  return sum
end
