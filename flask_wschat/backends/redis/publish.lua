-- Append a message and publish it, unless its mid is known. All of it or nothing: the
-- first write is one that Redis refuses when its memory is full.
-- KEYS: meta, log, mids
-- ARGV: channel, body, size, ttl and meta's ttl in ms, mid or '', and the epoch and
--       number that the caller has seen, if any
-- Where there is a new epoch, the channel is told first: what was known of the topic may
-- be lost with the old one, and be known by those who listen.
-- Returns the number, the time, the epoch and 1. Where the mid is known, 0 instead of
-- the 1, and of a message that is kept no more the time of the oldest one that is.
local clock = redis.call('TIME')
local at = string.format('%d.%06d', clock[1], clock[2])
local new_epoch = string.format('%x%05x', clock[1], clock[2])
local size, mid = tonumber(ARGV[3]), ARGV[6]
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
local epoch, made = meta[1], false

if epoch and mid ~= '' then
  local score = redis.call('ZSCORE', KEYS[3], mid)
  if score then
    local first = redis.call('XRANGE', KEYS[2], score, '+', 'COUNT', 1)[1]
    return {tonumber(score), first and first[2][2] or at, epoch, 0}
  end
end

if not epoch then
  epoch, made = new_epoch, true
  redis.call('HSET', KEYS[1], 'epoch', epoch)
  redis.call('DEL', KEYS[2], KEYS[3])
elseif epoch == ARGV[7] and tonumber(ARGV[8]) > tonumber(meta[2] or 0) then
  -- Redis came back without messages that others have seen.
  epoch, made = new_epoch, true
  redis.call('HSET', KEYS[1], 'epoch', epoch)
end
if made then
  redis.call('PUBLISH', ARGV[1], '0 ' .. at .. ' - {"event":"made"}\n')
end
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
redis.call('XADD', KEYS[2], 'MAXLEN', size, seq .. '-0', 'at', at, 'body', ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
if mid ~= '' then
  redis.call('ZADD', KEYS[3], seq, mid)
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', seq - 4 * size)
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
end
redis.call('PUBLISH', ARGV[1], seq .. ' ' .. at .. ' ' .. epoch .. ' ' .. ARGV[2])
return {seq, at, epoch, 1}
