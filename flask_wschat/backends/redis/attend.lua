-- Note how many connections a process has of some users in a topic.
-- KEYS: users, a hash from user to a JSON object from process to count
-- ARGV: process, the key's life in ms, then user and count in turn; a count of 0 takes the user out
-- Returns user and 1 in turn for each who was in no process before, 0 for each who is
-- in none any more.
local changed = {}
for i = 3, #ARGV, 2 do
  local user, count = ARGV[i], tonumber(ARGV[i + 1])
  local text = redis.call('HGET', KEYS[1], user)
  local counts = text and cjson.decode(text) or {}
  if count > 0 then
    counts[ARGV[1]] = count
  else
    counts[ARGV[1]] = nil
  end
  if next(counts) then
    redis.call('HSET', KEYS[1], user, cjson.encode(counts))
    if not text then
      changed[#changed + 1] = user
      changed[#changed + 1] = 1
    end
  elseif text then
    redis.call('HDEL', KEYS[1], user)
    changed[#changed + 1] = user
    changed[#changed + 1] = 0
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return changed
