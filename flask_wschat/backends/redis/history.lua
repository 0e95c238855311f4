-- Read a page of a topic's log; make the topic's epoch if it has none, and a new one
-- if the calling process was given numbers that are yet to come.
-- KEYS: meta, log, mids
-- ARGV: limit, after or '', before or '', the epoch to resume or '', ttl and meta's ttl
--       in ms, the epoch and number that the process has seen, if any, the channel, which
--       is told where there is a new epoch: see publish.lua; and meta's ttl where nothing
--       was ever kept
-- Returns the epoch, the newest number, 1 if all after `after` is there or else 0, 1 if
-- the entries are in reverse order or else 0, the entries, 1 if it is claimed.
local clock = redis.call('TIME')
local limit, after, before = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'plain')
local epoch, seq, plain = meta[1], tonumber(meta[2] or 0), meta[3] and 1 or 0

if not epoch or (epoch == ARGV[7] and tonumber(ARGV[8]) > seq) then
  local seen = not epoch and ARGV[7] ~= '' and ARGV[8] == '0'
  if not epoch then
    redis.call('DEL', KEYS[2], KEYS[3])
  end
  epoch = seen and ARGV[7] or string.format('%x%05x', clock[1], clock[2])
  redis.call('HSET', KEYS[1], 'epoch', epoch)
  local at = string.format('%d.%06d', clock[1], clock[2])
  redis.call('PUBLISH', ARGV[9], '0 ' .. at .. ' - {"event":"made"}\n')
end
local same = epoch == ARGV[4] and after
redis.call('PEXPIRE', KEYS[1], seq > 0 and ARGV[6] or ARGV[10])

local oldest_time = clock[1] + clock[2] / 1e6 - ARGV[5] / 1000
local oldest, outdated
repeat
  local from = outdated and ('(' .. outdated) or '-'
  local entries = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', 16)
  for _, entry in ipairs(entries) do
    if (tonumber(entry[2][2]) or 0) > oldest_time then
      oldest = entry[1]
      break
    end
    outdated = entry[1]
  end
until oldest or #entries == 0
if outdated and oldest then
  redis.call('XTRIM', KEYS[2], 'MINID', oldest)
elseif outdated then
  redis.call('DEL', KEYS[2])
end

local recovered = 0
if same and after <= seq then
  local first = oldest and tonumber(string.match(oldest, '^%d+'))
  if after == seq or (first and first <= after + 1) then
    recovered = 1
  end
end
if ARGV[4] ~= '' and recovered == 0 then
  after, before = nil, nil
end
if limit <= 0 then
  return {epoch, seq, recovered, 0, {}, plain}
elseif after then
  local from = string.format('%.0f', math.max(after + 1, 0))
  return {epoch, seq, recovered, 0,
    redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', limit), plain}
end
local to = '+'
if before then
  if before <= 1 then
    return {epoch, seq, recovered, 0, {}, plain}
  end
  to = string.format('%.0f', before - 1)
end
return {epoch, seq, recovered, 1,
  redis.call('XREVRANGE', KEYS[2], to, '-', 'COUNT', limit), plain}
