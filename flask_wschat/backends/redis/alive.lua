-- Note that a process lives, and give the caller those that died.
-- KEYS: alive and dead, both zsets of processes scored by a time in ms
-- ARGV: process, ttl in ms, 1 to take over the dead, 0 only to be noted at all, and the
--       keys' life in ms
-- Who was not heard of itself takes over nobody this time: Redis was away, or full, and
-- the others have not been able to say that they live, either.
-- Returns 1 if the process was noted, 0 if it is new; then the dead. They are the
-- caller's for one more ttl, after which someone else takes over what it has left.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
local answer = {known and 1 or 0}
if not known or ARGV[3] == '1' then
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
end
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[4])
end
if ARGV[3] == '1' and not (known and tonumber(known) <= now) then
  for _, process in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
    redis.call('ZREM', KEYS[1], process)
    redis.call('ZADD', KEYS[2], 0, process)
  end
  for _, process in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)) do
    redis.call('ZADD', KEYS[2], now + ARGV[2], process)
    answer[#answer + 1] = process
  end
end
return answer
