-- Append a message and publish it, unless its mid is known. All of it or nothing: the
-- first write is one that Redis refuses when its memory is full.
-- KEYS: meta, log, mids, told
-- ARGV: channel, body, size, ttl and meta's ttl in ms, mid or '', the epoch and number
--       that the caller has seen, if any, the bytes that may be kept, and those of this
--       one's data; who tells the topic's owner something or '', whom the owner answers
--       or '', and the messages and bytes that may be told without an answer
-- Where Redis has forgotten a topic that the caller has seen empty, its epoch stays: those
-- who wait in it for the first message need not read it again.
-- An entry's id is <number>-<bytes said before it>: so what is kept is known from the
-- oldest one's id, whatever took the others away. `floor` is not over that: only where it
-- says that there may be too much, the oldest ones are looked at.
-- Where there is a new epoch, the channel is told first: what was known of the topic may
-- be lost with the old one, and be known by those who listen.
-- Returns the number, the time, the epoch and 1. Where the mid is known, 0 instead of
-- the 1, and of a message that is kept no more the time of the oldest one that is. 2:
-- nothing is done, as too much is not answered.
local clock = redis.call('TIME')
local at = string.format('%d.%06d', clock[1], clock[2])
local new_epoch = string.format('%x%05x', clock[1], clock[2])
local size, mid, most = tonumber(ARGV[3]), ARGV[6], tonumber(ARGV[9])
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'said', 'floor')
local epoch, made = meta[1], false
local before, floor = tonumber(meta[3] or 0), tonumber(meta[4] or 0)

if epoch and mid ~= '' then
  local score = redis.call('ZSCORE', KEYS[3], mid)
  if score then
    local first = redis.call('XRANGE', KEYS[2], score, '+', 'COUNT', 1)[1]
    return {tonumber(score), first and first[2][2] or at, epoch, 0}
  end
end

local teller, told = ARGV[11], nil
if teller ~= '' then
  -- As shares.py has it: count, bytes, since when, and the number of the last one.
  local newest, now = tonumber(meta[2] or 0), clock[1] * 1000 + math.floor(clock[2] / 1000)
  local function read(text)
    local count, bytes, since, last = string.match(text, '^(%d+) (%d+) (%d+) (%d+)$')
    if tonumber(last) > newest - size and now - since <= tonumber(ARGV[4]) then
      return tonumber(count), tonumber(bytes), since
    end
  end
  local known = redis.call('HGET', KEYS[4], teller)
  local count, bytes, since
  if known then
    count, bytes, since = read(known)
  elseif redis.call('HLEN', KEYS[4]) >= 2 * size then
    local all = redis.call('HGETALL', KEYS[4])
    for i = 1, #all, 2 do
      if not read(all[i + 1]) then
        redis.call('HDEL', KEYS[4], all[i])
      end
    end
  end
  count, bytes = (count or 0) + 1, (bytes or 0) + ARGV[10]
  if count > 1 and (count > tonumber(ARGV[13]) or bytes > tonumber(ARGV[14])) then
    return {0, at, '', 2}
  end
  told = string.format('%.0f %.0f %s %.0f', count, bytes, since or string.format('%.0f', now), newest + 1)
end

if not epoch then
  epoch, made = new_epoch, true
  if ARGV[7] ~= '' and ARGV[8] == '0' then
    epoch = ARGV[7]
  end
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
local id = string.format('%d-%.0f', seq, before)
redis.call('XADD', KEYS[2], 'MAXLEN', size, id, 'at', at, 'body', ARGV[2])
local said = redis.call('HINCRBY', KEYS[1], 'said', ARGV[10])
if said - floor > most then
  repeat
    local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
    local number, under = string.match(oldest[1], '^(%d+)%-(%d+)$')
    floor = tonumber(under)
    if said - floor > most and tonumber(number) < seq then
      redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f', number + 1))
      local body = oldest[2][4] or ''  -- not every entry is ours
      floor = floor + #body - (string.find(body, '\n', 1, true) or 0)
    else
      break
    end
  until said - floor <= most
  redis.call('HSET', KEYS[1], 'floor', string.format('%.0f', floor))
end
redis.call('PEXPIRE', KEYS[2], ARGV[4])
if told then
  redis.call('HSET', KEYS[4], teller, told)
  redis.call('PEXPIRE', KEYS[4], ARGV[4])
elseif ARGV[12] ~= '' then
  redis.call('HDEL', KEYS[4], ARGV[12])
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
if mid ~= '' then
  redis.call('ZADD', KEYS[3], seq, mid)
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', seq - 4 * size)
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
end
redis.call('PUBLISH', ARGV[1], seq .. ' ' .. at .. ' ' .. epoch .. ' ' .. ARGV[2])
return {seq, at, epoch, 1}
