-- Do a step of a message that grows; publish it, if it changed something that others see.
-- KEYS: growths, pieces
-- ARGV: channel; the event; the id; n; ttl in ms; what is published, in its last line the
--       piece; how often their ttl those are kept of whom nobody hears; when the one was begun
--       that it is for, 0: whichever; and with `stream` how many may grow, and the rest that is
--       known of it (JSON)
-- In `growths` an id has '<n> <heard in ms> <ttl> <1 if it is to stop> <at> <the rest>'; in
-- `pieces` each piece is '<n>:<id>', so that one costs the same however many there are; 64 of
-- them become one under the last one's number, so that who reads all has few to ask for.
-- Returns what became of it: `done`, `known`, `gone`, `other`, `lacks`, `stop`, `alive` or
-- `many`; before it the time, or where `stream` was known when that was.
-- Without KEYS nothing is done: Redis has learned the script, and that was all.
if #KEYS == 0 then
  return
end
local clock = redis.call('TIME')
local at = string.format('%d.%06d', clock[1], clock[2])
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local event, id, n = ARGV[2], ARGV[3], tonumber(ARGV[4])

local function read(text)
  local count, heard, ttl, stop, rest = string.match(text, '^(%d+) (%d+) (%d+) (%d) (.*)$')
  return tonumber(count), tonumber(heard), tonumber(ttl), stop, rest
end

local function drop(id, count)  -- so many pieces
  redis.call('HDEL', KEYS[1], id)
  if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('UNLINK', KEYS[2])
    return
  end
  for i = 64, count, 64 do
    redis.call('HDEL', KEYS[2], i .. ':' .. id)
  end
  for i = count - count % 64 + 1, count do
    redis.call('HDEL', KEYS[2], i .. ':' .. id)
  end
end

local function write(count, ttl, stop, rest)
  redis.call('HSET', KEYS[1], id, string.format('%.0f %.0f %.0f %s %s', count, now, ttl, stop, rest))
end

local function tell()
  redis.call('PUBLISH', ARGV[1], '0 ' .. at .. ' - ' .. ARGV[6])
  return at .. ' done'
end

local known = redis.call('HGET', KEYS[1], id)
if event == 'stream' then
  if known then
    return string.match(select(5, read(known)), '^%S+') .. ' known'
  end
  local alive, ttl, all = 0, tonumber(ARGV[5]), redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    local count, heard, each = read(all[i + 1])
    if now - heard <= each then
      alive = alive + 1
    elseif now - heard > ARGV[7] * each then
      drop(all[i], count)
    end
  end
  if alive >= tonumber(ARGV[9]) then
    return at .. ' many'
  end
  write(0, ttl, 0, at .. ' ' .. ARGV[10])
  redis.call('PEXPIRE', KEYS[1], math.max(redis.call('PTTL', KEYS[1]), ARGV[7] * ttl))
  return tell()
end
if event == 'end' then  -- where no messages are kept
  if known then
    drop(id, read(known))
  end
  return tell()
end
if not known then
  return at .. ' gone'
end
local count, heard, ttl, stop, rest = read(known)
if tonumber(ARGV[8]) > 0 and math.abs(ARGV[8] - string.match(rest, '^%S+')) >= 0.001 then
  return at .. ' other'
end
if event == 'append' then
  if stop == '1' then
    return at .. ' stop'
  elseif n > count + 1 then
    return at .. ' lacks'
  end
  write(math.max(n, count), ttl, stop, rest)
  if n > count then
    local piece = string.sub(ARGV[6], string.find(ARGV[6], '\n', 1, true) + 1)
    if n % 64 == 0 then
      local names = {}
      for i = n - 63, n - 1 do
        names[#names + 1] = i .. ':' .. id
      end
      piece = table.concat(redis.call('HMGET', KEYS[2], unpack(names))) .. piece
      redis.call('HDEL', KEYS[2], unpack(names))
    end
    redis.call('HSET', KEYS[2], ARGV[4] .. ':' .. id, piece)
  end
  local life = math.max(redis.call('PTTL', KEYS[1]), ARGV[7] * ttl)
  redis.call('PEXPIRE', KEYS[1], life)
  redis.call('PEXPIRE', KEYS[2], life)
  return n > count and tell() or at .. ' known'
elseif event == 'stop' then
  redis.call('HSET', KEYS[1], id, string.format('%.0f %.0f %.0f 1 %s', count, heard, ttl, rest))
  return at .. ' known'
end
if tonumber(ARGV[5]) > 0 and now - heard <= ttl then
  return at .. ' alive'
end
drop(id, count)
return tell()
