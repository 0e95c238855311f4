-- Take a process and all its users out of a topic.
-- KEYS: users; see attend.lua. ARGV: process
-- Returns the users who are in no other process.
local gone = {}
local users = redis.call('HGETALL', KEYS[1])
for i = 1, #users, 2 do
  local counts = cjson.decode(users[i + 1])
  if counts[ARGV[1]] then
    counts[ARGV[1]] = nil
    if next(counts) then
      redis.call('HSET', KEYS[1], users[i], cjson.encode(counts))
    else
      redis.call('HDEL', KEYS[1], users[i])
      gone[#gone + 1] = users[i]
    end
  end
end
return gone
