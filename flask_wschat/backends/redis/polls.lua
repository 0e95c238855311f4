-- Note in the list of polls made at run time that one is about to be.
-- KEYS: polls, a sorted set of '<id> <name>' by when they are over, in ms
-- ARGV: that of the new one, ms for which it lasts, how many there may be
-- Returns 1, or 0 if there are as many.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)
if over[1] then
  redis.call('ZREM', KEYS[1], unpack(over))
end
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not known and #redis.call('ZRANGE', KEYS[1], 0, -1) >= tonumber(ARGV[3]) then
  return 0
end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.max(redis.call('PTTL', KEYS[1]), ARGV[2]))
return 1
