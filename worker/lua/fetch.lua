#!lua flags=allow-oom
-- Moves the waiting messages that fit, the most urgent list first, to the unacknowledged messages
-- of the worker. At no moment is a message in neither place.
-- KEYS: unacked, unacked index, list of each priority
-- ARGV: Unix time, then for each list: queue name, most messages, most bytes
-- From a list with any room at least one message is taken, however large.
-- Returns {queue name, delivery tag, message, queue name, delivery tag, message, ...}. A message without
-- a tag is none of ours: its digest stands for the tag until the worker sets it aside.
local taken = {}
for i = 3, #KEYS do
  local at = 2 + (i - 3) * 3
  local queue, count, room = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local is_first = true
  while count > 0 and room > 0 do
    local message = redis.call('LINDEX', KEYS[i], -1)
    if not message then break end
    local _, cost_at = string.find(message, '"cost":', 1, true)
    local cost = cost_at and tonumber(string.match(message, '^%s*(%d+)', cost_at + 1)) or #message
    if cost > room and not is_first then break end
    local _, tag_at = string.find(message, '"delivery_tag":', 1, true)
    local tag = tag_at and string.match(message, '^%s*"([%w.:_-]+)"', tag_at + 1)
      or 'garbage:' .. redis.sha1hex(message)
    redis.call('RPOP', KEYS[i])
    redis.call('HSET', KEYS[1], tag, '[' .. message .. ', "", "' .. queue .. '"]')
    redis.call('ZADD', KEYS[2], ARGV[1], tag)
    taken[#taken + 1] = queue
    taken[#taken + 1] = tag
    taken[#taken + 1] = message
    count, room, is_first = count - 1, room - cost, false
  end
end
return taken
