-- Functions of the queue of one model and one priority.
-- `turns` lists the clients that have waiting messages, the next one last. `waiting` is the prefix of the
-- list of each client's messages. The client '+' (express) stands for all messages that go first; it is
-- always the last of `turns` while it has any.

local EXPRESS = '+'

local function enqueue(turns, waiting, client, message)
  if redis.call('LPUSH', waiting .. client, message) > 1 then return end
  redis.call(client == EXPRESS and 'RPUSH' or 'LPUSH', turns, client)
end

-- Puts a message before all others.
local function enqueue_first(turns, waiting, message)
  if redis.call('RPUSH', waiting .. EXPRESS, message) == 1 then
    redis.call('RPUSH', turns, EXPRESS)
  end
end
