-- Append messages to a topic and publish them, but those whose mid is known. All of it or
-- nothing: the first write is one that Redis refuses when its memory is full.
-- KEYS: meta, log, mids0, mids1, told, gone; and growths and pieces, where the message is
--       one that has grown
-- ARGV: channel; the epoch, number and tag that the caller has seen, if any; the messages
--       and bytes that may be kept; ttl and meta's ttl in ms; for how many ms mids are
--       known at least; the messages and bytes that may be told without an answer; the
--       tag of these messages; 1 if a replica has to have them, else ''; 5 or 3, how many
--       there are of each message:
--       mid or '', the bytes of its data, its body; and of 5 who tells the topic's owner
--       something or '', whom the owner answers or ''
-- Where Redis has forgotten a topic that the caller has seen empty, its epoch stays: those
-- who wait in it for the first message need not read it again.
-- Where there is a new epoch, the channel is told first: what was known of the topic may
-- be lost with the old one, and be known by those who listen.
-- An entry's id is <number>-<bytes said before it>, so its bytes and those of all after it
-- are known from it. `marks` are such ids, an eighth of what may be kept apart: what is
-- too much goes up to one of them, and no body is read for it. Readers get no more than
-- they should; see history.lua.
-- To make a string, Lua reads all of it (1 ns a byte, redis 7.0.15): a body that is not
-- small is published by itself, right after what tells of it.
-- mids are in two hashes. `turned` is when the newer one was begun, `turn` which one it is.
-- When it is old enough, and has as many as are kept, the older one makes room.
-- Returns the time, the epoch, and for each message its number, =<number>:<time> where its
-- mid is known, or ! where too much is not answered. +<number> is all of them in order.
-- Without KEYS nothing is done: Redis has learned the script, and that was all.
if #KEYS == 0 then
  return
end
local clock = redis.call('TIME')
local at = string.format('%d.%06d', clock[1], clock[2])
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local size, most, step = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[14])
local last_arg = KEYS[7] and #ARGV - 1 or #ARGV
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'said', 'tag', 'due', 'turn', 'mark', 'gone')
local epoch, tag, made = meta[1], meta[4] or '-', false
local new_epoch = string.format('%x%05x', clock[1], clock[2])
local seq, said, due = tonumber(meta[2] or 0), tonumber(meta[3] or 0), tonumber(meta[5] or 0)
local turn, mark = meta[6], tonumber(meta[7] or 0)

local known, mids = {}, {}
for i = 15, last_arg, step do
  if ARGV[i] ~= '' then
    mids[#mids + 1] = ARGV[i]
  end
end
if turn and epoch and #mids > 0 then
  for n = 3, turn == '0' and 3 or 4 do
    for i, found in ipairs(redis.call('HMGET', KEYS[n], unpack(mids))) do
      known[mids[i]] = found or known[mids[i]]
    end
  end
end

-- As shares.py has it: count, bytes, since when, and the number of the last one.
local read, tell
if step == 5 then
read = function(text)
  local count, bytes, since, last = string.match(text, '^(%d+) (%d+) (%d+) (%d+)$')
  if last and tonumber(last) > seq - size and now - since <= tonumber(ARGV[7]) then
    return tonumber(count), tonumber(bytes), since
  end
end

tell = function(teller, bytes)
  local text = redis.call('HGET', KEYS[5], teller)
  local count, total, since
  if text then
    count, total, since = read(text)
  elseif redis.call('HLEN', KEYS[5]) >= 2 * size then
    local all = redis.call('HGETALL', KEYS[5])
    for i = 1, #all, 2 do
      if not read(all[i + 1]) then
        redis.call('HDEL', KEYS[5], all[i])
      end
    end
  end
  count, total = (count or 0) + 1, (total or 0) + bytes
  if count == 1 or (count <= tonumber(ARGV[10]) and total <= tonumber(ARGV[11])) then
    since = since or string.format('%.0f', now)
    return string.format('%.0f %.0f %s %.0f', count, total, since, seq + 1)
  end
end
end

local answers, first, before = {}, nil, tag
local fresh, lengths, bodies, apart = {}, {}, {}, {}
for i = 15, last_arg, step do
  local mid, bytes, body = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local told = step == 5 and ARGV[i + 3] ~= '' and not known[mid] and tell(ARGV[i + 3], bytes)
  if known[mid] then
    local kept = redis.call('XRANGE', KEYS[2], known[mid], '+', 'COUNT', 1)[1]
    local when = kept and string.match(kept[2][2], '^%S+') or at
    answers[#answers + 1] = '=' .. known[mid] .. ':' .. when
  elseif step == 5 and ARGV[i + 3] ~= '' and not told then
    answers[#answers + 1] = '!'
  else
    local number = string.format('%.0f', seq + 1)
    if not first then
      local last = epoch and epoch == ARGV[2] and tonumber(ARGV[3])
      if not epoch then
        epoch, made = new_epoch, true
        if ARGV[2] ~= '' and ARGV[3] == '0' then
          epoch = ARGV[2]
        end
        redis.call('HSET', KEYS[1], 'epoch', epoch)
        redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[6])
        turn, tag = nil, '-'
      elseif last and (last > seq or (last == seq and ARGV[4] ~= '' and ARGV[4] ~= tag)) then
        -- Redis came back without messages that others have seen.
        epoch, made = new_epoch, true
        redis.call('HSET', KEYS[1], 'epoch', epoch)
      end
      before = tag
    end
    local id, old = number .. '-' .. said, at .. ' ' .. ARGV[12] .. ' ' .. tag
    local added = redis.pcall('XADD', KEYS[2], 'NOMKSTREAM', id, 'at', old, 'body', body)
    if not added then
      redis.call('XADD', KEYS[2], id, 'at', old, 'body', body)
      due = 0
    elseif type(added) == 'table' then
      if not string.find(added.err, 'equal or smaller', 1, true) then
        return added
      end
      -- The numbers are older than the messages: somebody has put them back.
      epoch, made, due = new_epoch, true, 0
      redis.call('HSET', KEYS[1], 'epoch', epoch)
      redis.call('DEL', KEYS[2], KEYS[6])
      redis.call('XADD', KEYS[2], id, 'at', old, 'body', body)
    end
    first = first or number
    if told then
      redis.call('HSET', KEYS[5], ARGV[i + 3], told)
    elseif step == 5 and ARGV[i + 4] ~= '' then
      redis.call('HDEL', KEYS[5], ARGV[i + 4])
    end
    if mid ~= '' then
      known[mid] = number
      fresh[#fresh + 1] = mid
      fresh[#fresh + 1] = number
    end
    seq, said, tag = seq + 1, said + bytes, ARGV[12]
    answers[#answers + 1] = number
    if #body < 2048 then
      bodies[#bodies + 1] = body
      lengths[#lengths + 1] = #body
    else
      apart[#apart + 1] = body
      lengths[#lengths + 1] = -#body
    end
  end
end

if not first then
  if ARGV[13] ~= '' and epoch then
    redis.call('HSET', KEYS[1], 'epoch', epoch)  -- so that WAIT has something to wait for
  end
  return at .. ' ' .. (epoch or '-') .. ' ' .. table.concat(answers, ' ')
end

local stored = {'seq', seq, 'said', said, 'tag', tag}
local function store(name, value)
  stored[#stored + 1] = name
  stored[#stored + 1] = value
end

-- Up to which number, and which bytes, all may go
local upto
if said - mark > most / 8 then
  local marks, kept = redis.call('HGET', KEYS[1], 'marks') or '', {}
  for number, under in string.gmatch(marks .. seq + 1 .. '-' .. said .. ' ', '(%d+)%-(%d+) ') do
    if said - under >= most and tonumber(number) <= seq then
      upto, kept = number, {}
    end
    kept[#kept + 1] = number .. '-' .. under .. ' '
  end
  store('marks', table.concat(kept))
  store('mark', said)
end
local tidy = math.floor(seq / 32) > math.floor((first - 1) / 32)
if tidy and seq - size >= tonumber(upto or 1) then
  upto = string.format('%.0f', seq - size + 1)
end
if upto then
  redis.call('XTRIM', KEYS[2], 'MINID', upto)
  if meta[8] then
    for _, number in ipairs(redis.call('HKEYS', KEYS[6])) do
      if tonumber(number) < tonumber(upto) then
        redis.call('HDEL', KEYS[6], number)
      end
    end
  end
end

if #fresh > 0 then
  if not turn then
    turn, due = '0', 0
    store('turn', turn)
    store('turned', now)
  elseif tidy then
    local turned = tonumber(redis.call('HGET', KEYS[1], 'turned') or 0)
    if now - turned >= tonumber(ARGV[9]) and redis.call('HLEN', KEYS[turn % 2 + 3]) >= size then
      -- Both are asked from the first turn on.
      turn, due = turn == '1' and '2' or '1', 0
      redis.call('UNLINK', KEYS[turn % 2 + 3])
      store('turn', turn)
      store('turned', now)
    end
  end
  redis.call('HSET', KEYS[turn % 2 + 3], unpack(fresh))
end
if now < due then
  redis.call('HSET', KEYS[1], unpack(stored))
else
  -- What lives a sixteenth longer need not be given a new life so often.
  local longer = math.floor(ARGV[7] / 16)
  store('due', now + longer)
  redis.call('HSET', KEYS[1], unpack(stored))
  redis.call('PEXPIRE', KEYS[1], ARGV[8] + longer)
  for n = 2, 4 do
    redis.call('PEXPIRE', KEYS[n], ARGV[7] + longer)
  end
end
if step == 5 then
  redis.call('PEXPIRE', KEYS[5], ARGV[7])
end

if KEYS[7] then
  local id = ARGV[#ARGV]
  local n = string.match(redis.call('HGET', KEYS[7], id) or '', '^%d+')
  redis.call('HDEL', KEYS[7], id)
  if redis.call('EXISTS', KEYS[7]) == 0 then
    redis.call('UNLINK', KEYS[8])
  else
    for i = 1, n or 0 do
      redis.call('HDEL', KEYS[8], i .. ':' .. id)
    end
  end
end
if made then
  redis.call('PUBLISH', ARGV[1], '0 ' .. at .. ' - {"event":"made"}\n')
end
local head = first .. ' ' .. at .. ' ' .. epoch .. ' ' .. tag .. ' ' .. before .. ' '
redis.call('PUBLISH', ARGV[1], head .. table.concat(lengths, ',') .. ' ' .. table.concat(bodies))
for _, body in ipairs(apart) do
  redis.call('PUBLISH', ARGV[1], body)
end
if #answers == #lengths then
  return at .. ' ' .. epoch .. ' +' .. first
end
return at .. ' ' .. epoch .. ' ' .. table.concat(answers, ' ')
