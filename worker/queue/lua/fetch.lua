#!lua flags=allow-oom
-- Moves waiting messages to the unacknowledged messages of the worker, the most urgent priority first.
-- Within a priority: first the express messages, then deficit round robin over the clients (Shreedhar
-- and Varghese, 1995), in bytes of work. At no moment is a message in neither place.
-- KEYS: unacked, unacked index, aboard of an idle worker ('' to open nothing), then of each priority: turns,
--       waiting (prefix), deficits (hash: client -> bytes that it may still take in its turn), list of
--       messages without a queue of their own
-- ARGV: Unix time, queue name, quantum bytes, long bytes, prefix of records, prefix of payloads, fingerprint
--       of the worker's model, major version of messages that are opened, Unix time: only jobs that were
--       submitted later are opened, then of each priority: most messages, bytes and long messages of express,
--       most messages, bytes and long messages of the clients, number of busy clients, and these clients.
--       A message is long if it costs more than `long bytes`; the worker scores it slice by slice, so it
--       counts as `long bytes`. A busy client has a long message in the worker already.
-- The first message of each kind is taken however large, unless it is long and no long one may be taken.
-- Express messages of jobs that were cancelled or erased take no room: the worker only acknowledges
-- them. The others are part of their client's turn, so few of their records need a look.
-- A job that comes alone to an idle worker is opened too: one round trip and one write to disk less.
-- Returns {is express ('1' or '0'), delivery tag, message, ...}, and then what `open_job` returns if a job
-- was opened. A message without a tag is none of ours: its digest stands for the tag until the worker
-- sets it aside.
-- include: queue
-- include: opening
local quantum, long_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local fetched = {}

-- A fetch takes so many messages of ended jobs at most, so that it stays short.
local MAX_ENDED = 1000
local num_ended = 0
-- So many turns of a priority may pass without taking a message. The next fetch goes on from there.
local MAX_IDLE_TURNS = 256

-- Returns what a message costs at most at once, and whether it is long.
local function cost_of(message)
  local _, cost_at = string.find(message, '"cost":', 1, true)
  local cost = cost_at and tonumber(string.match(message, '^%s*(%d+)', cost_at + 1)) or #message
  return math.min(cost, long_bytes), cost > long_bytes
end

-- Returns the next message of a list, what it costs at most at once, and whether it is long.
local function look(list)
  local message = redis.call('LINDEX', list, -1)
  if not message then return nil, 0, false end
  return message, cost_of(message)
end

local function tag_of(message)
  local _, tag_at = string.find(message, '"delivery_tag":', 1, true)
  return tag_at and string.match(message, '^%s*"([%w.:_-]+)"', tag_at + 1)
end

local function take(list, message, is_express)
  local tag = tag_of(message) or 'garbage:' .. redis.sha1hex(message)
  redis.call('RPOP', list)
  redis.call('HSET', KEYS[1], tag, '[' .. message .. ', "", "' .. ARGV[2] .. '"]')
  redis.call('ZADD', KEYS[2], ARGV[1], tag)
  for _, word in ipairs({is_express, tag, message}) do fetched[#fetched + 1] = word end
end

local function has_ended(message)
  local tag = tag_of(message)
  if not tag then return false end
  local record = redis.pcall('GETRANGE', ARGV[5] .. tag, 0, 39)
  -- A record of a wrong type is found when it is opened.
  if type(record) ~= 'string' then return false end
  return record == '' or is_final(state_of(record))
end

-- Takes the messages of ended jobs at the head of the express messages, then looks at the next one.
local function look_past_ended(list)
  local message, cost, is_long = look(list)
  while message and num_ended < MAX_ENDED and has_ended(message) do
    take(list, message, '1')
    num_ended = num_ended + 1
    message, cost, is_long = look(list)
  end
  return message, cost, is_long
end

local function fetch_express(list, count, room, num_long)
  local is_first, first_passed = true, nil
  for _ = 1, count do
    local message, cost, is_long = look_past_ended(list)
    -- After one look at each message the long ones that were passed are in order again.
    if not message or room <= 0 or message == first_passed then return end
    if is_long and num_long < 1 then
      first_passed = first_passed or message
      redis.call('LMOVE', list, list, 'RIGHT', 'LEFT')
    elseif cost > room and not is_first then
      return
    else
      take(list, message, '1')
      room, is_first, num_long = room - cost, false, num_long - (is_long and 1 or 0)
    end
  end
end

-- Looks at the next message of a client. Where no long one may be taken, one whose job has ended counts as
-- short, so that it does not hold up the messages behind it.
local function look_in_turn(list, may_be_long)
  local message, cost, is_long = look(list)
  return message, cost, is_long and (may_be_long or not has_ended(message))
end

local function fetch_by_turns(turns, waiting, deficits, count, room, num_long, busy)
  local is_first, num_skipped, num_clients = true, 0, redis.call('LLEN', turns)
  local num_idle = 0
  while count > 0 and room > 0 and num_skipped < num_clients and num_idle < MAX_IDLE_TURNS do
    local client = redis.call('LINDEX', turns, -1)
    local list, has_room, before = waiting .. client, true, count
    local message, cost, is_long = look_in_turn(list, num_long > 0 and not busy[client])
    local deficit = tonumber(redis.call('HGET', deficits, client) or '0')
    if deficit < cost then deficit = deficit + quantum end
    while message and deficit >= cost and not (is_long and (num_long < 1 or busy[client])) do
      has_room = count > 0 and (cost <= room or is_first)
      if not has_room then break end
      take(list, message, '0')
      if is_long then num_long, busy[client] = num_long - 1, true end
      count, room, deficit, is_first = count - 1, room - cost, deficit - cost, false
      message, cost, is_long = look_in_turn(list, num_long > 0 and not busy[client])
    end
    if not message then
      redis.call('RPOP', turns)
      redis.call('HDEL', deficits, client)
      num_clients, num_skipped = num_clients - 1, 0
    else
      redis.call('HSET', deficits, client, deficit)
      -- The message whose turn it is goes first in the next fetch.
      if not has_room then return end
      redis.call('LMOVE', turns, turns, 'RIGHT', 'LEFT')
      num_skipped = deficit >= cost and num_skipped + 1 or 0
      if count == before then num_idle = num_idle + 1 end
    end
  end
end

-- Parts of batches and long texts are opened later. So is what another worker had, as it may be at fault,
-- and what only another release can read. A job that was submitted before the worker's last micro-batch ended
-- may still have to wait there. It is not opened yet, so that a crash does not count against it.
local function open_lone(aboard, tag, message)
  local _, is_long = cost_of(message)
  if is_long or tag_of(message) ~= tag or string.find(tag, '.', 1, true) then return end
  if string.find(message, '"redelivered":true', 1, true) then return end
  if string.match(message, '"version":"(%d+)%.') ~= ARGV[8] then return end
  local submitted_at = tonumber(string.match(message, '"submitted_at":%s*([%d.eE+-]+)') or '0')
  if not submitted_at or submitted_at <= tonumber(ARGV[9]) then return end
  redis.call('DEL', aboard)
  -- The message is taken already: what cannot be opened is handed out unopened, and found later.
  local is_open, answer = pcall(open_job, aboard, ARGV[7], tag, ARGV[5] .. tag, ARGV[6] .. tag, '', '')
  if is_open then fetched[4] = answer else redis.call('DEL', aboard) end
end

local at = 10
for i = 4, #KEYS, 4 do
  local turns, waiting, deficits, homeless = unpack(KEYS, i, i + 3)
  local express, rooms, busy = waiting .. EXPRESS, {}, {}
  for j = 1, 7 do rooms[j] = tonumber(ARGV[at + j - 1]) end
  for j = at + 7, at + 6 + rooms[7] do busy[ARGV[j]] = true end
  at = at + 7 + rooms[7]
  for _ = 1, rooms[1] do
    if not redis.call('LMOVE', homeless, express, 'RIGHT', 'LEFT') then break end
  end
  fetch_express(express, rooms[1], rooms[2], rooms[3])
  if redis.call('LINDEX', turns, -1) == EXPRESS then redis.call('RPOP', turns) end
  fetch_by_turns(turns, waiting, deficits, rooms[4], rooms[5], rooms[6], busy)
  if redis.call('EXISTS', express) == 1 then redis.call('RPUSH', turns, EXPRESS) end
end
if KEYS[3] ~= '' and #fetched == 3 then open_lone(KEYS[3], fetched[2], fetched[3]) end
return fetched
