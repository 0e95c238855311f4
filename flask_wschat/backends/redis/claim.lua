-- Note that a topic is for plain connections; publish what tells of it, if it is new.
-- KEYS: meta, log, mids0, mids1, gone
-- ARGV: channel, payload, meta's ttl in ms, and that where nothing was ever kept
-- Returns 1 if it is new, else 0.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'plain', 'seq')
if not meta[1] then
  local clock = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'epoch', string.format('%x%05x', clock[1], clock[2]))
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
end
if not meta[2] then
  redis.call('HSET', KEYS[1], 'plain', 1)
  redis.call('PUBLISH', ARGV[1], ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], meta[3] and ARGV[3] or ARGV[4])
return meta[2] and 0 or 1
