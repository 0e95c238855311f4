-- Note that a process lives, and give the caller those that died.
-- KEYS: living and dying, both zsets of processes; clock, a hash
-- ARGV: process, ttl in ms, 1 to say that it lives and to take over the dead, 0 only to
--       be noted at all, 1 if it was noted before, and the keys' life in ms
-- The scores are times of a clock that goes only while processes are heard of: between
-- two of them it goes on by 0.4 ttl at most. So nobody dies of a time in which Redis
-- was away, or full, and a clock that is set anew changes nothing.
-- Returns 1 if the process is noted, 0 if it was and is not any more; then the dead.
-- They are the caller's for one more ttl, after which someone else takes over what it
-- has left.
local living, dying, clock = KEYS[1], KEYS[2], KEYS[3]
local process, ttl = ARGV[1], tonumber(ARGV[2])
local is_known = redis.call('ZSCORE', living, process)
if not is_known and ARGV[4] == '1' then
  return {0}
elseif is_known and ARGV[3] == '0' then
  return {1}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', clock, 'last', 'beat')
local step = math.min(now - (known[1] or now), math.floor(0.4 * ttl))
local beat = (known[2] or 0) + math.max(step, 0)
redis.call('HSET', clock, 'last', string.format('%.0f', now), 'beat', string.format('%.0f', beat))
redis.call('ZADD', living, beat + ttl, process)
local answer = {1}
if ARGV[3] == '1' then
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', living, '-inf', beat)) do
    redis.call('ZREM', living, other)
    redis.call('ZADD', dying, 0, other)
  end
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', dying, '-inf', beat)) do
    redis.call('ZADD', dying, beat + ttl, other)
    answer[#answer + 1] = other
  end
end
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[5])
end
return answer
