-- Take a message back: its number, time and tags stay, and its subscribers are told.
-- KEYS: meta, log, gone. ARGV: number, channel, the messages and bytes that may be kept,
--       meta's ttl in ms
-- Returns 1, or 0 if it is not kept.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'said')
local seq, number = tonumber(meta[2] or 0), tonumber(ARGV[1])
if not meta[1] or number < 1 or number > seq or number <= seq - ARGV[3] then
  return 0
end
local kept = redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1], 'COUNT', 1)[1]
if not kept or kept[2][1] ~= 'at' then
  return 0
end
local before = string.match(kept[1], '%-(%d+)$')
if number < seq and meta[3] - before > tonumber(ARGV[4]) then
  return 0
end
redis.call('HSET', KEYS[1], 'gone', 1)
redis.call('HSET', KEYS[3], ARGV[1], kept[2][2])
redis.call('PEXPIRE', KEYS[3], ARGV[5])
redis.call('XDEL', KEYS[2], kept[1])
local clock = redis.call('TIME')
local body = '{"event":"deleted"}\n' .. ARGV[1]
redis.call('PUBLISH', ARGV[2], string.format('0 %d.%06d - %s', clock[1], clock[2], body))
return 1
