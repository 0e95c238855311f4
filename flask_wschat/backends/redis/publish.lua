-- Append messages to a topic and publish them, but those whose mid is known. All of it or
-- nothing: the first write is one that Redis refuses when its memory is full.
-- KEYS: meta, log, mids0, mids1, gone; told, if it is an inbox; and growths and pieces,
--       where the message is one that has grown
-- ARGV: channel; the epoch, number and tag that the caller has seen, if any; the tag of
--       these messages; how long their bodies are, separated by commas; the bodies, all in
--       one; how many bytes of data are in them; their mids or '', none of them twice; in
--       an inbox of each who tells the owner something or '', and whom the owner answers
--       or ''; the id of what has grown. In the form for pipelines (`ordered`) there are,
--       behind the mids, others that have to be known, and as the last one, for each
--       message, which has to be stored before it: its place among these mids and those
--       others, 0 if none has to
-- LIMITS is what the caller puts in its place, as each argument costs: the messages and
-- bytes that may be kept; ttl and meta's ttl in ms; for how many ms mids are known at
-- least; the messages and bytes that may be told without an answer; 1 if a replica has to
-- have them; 1 for the form for pipelines.
-- Where Redis has forgotten a topic that the caller has seen empty, its epoch stays: those
-- who wait in it for the first message need not read it again.
-- Where there is a new epoch, the channel is told first: what was known of the topic may
-- be lost with the old one, and be known by those who listen.
-- The messages of a call are one entry, as ten cost little more than one then. It has one
-- field, <time> <tag> <tag before> <lengths>, whose value are the bodies. Its id is <number
-- of the first>-<bytes said before it>, so its bytes and those of all after it are known
-- from it. `marks` are such ids, an eighth of what may be kept apart: what is too much goes
-- up to one of them, and no body is read for it. Readers get no more than they should; see
-- history.lua.
-- To make a string, Lua reads all of it (1 ns a byte, redis 7.0.15): bodies that are not
-- small are published by themselves, right after what tells of them.
-- mids are in two hashes. `turned` is when the newer one was begun, `turn` which one it is.
-- When it is old enough, and has as many as are kept, the older one makes room.
-- Returns the time, the epoch, and for each message its number, =<number>:<time> where its
-- mid is known, ! where too much is not answered, or ? where what comes before it is not
-- stored. +<number> is all of them in order.
-- Without KEYS nothing is done: Redis has learned the script, and that was all.
if #KEYS == 0 then
  return
end
local size, most, ttl, meta_ttl, mids_for, share, share_bytes, waits, ordered = LIMITS
local call, KEYS, ARGV = redis.call, KEYS, ARGV
local inbox, grown = #KEYS % 2 == 0, #KEYS > 6 and 1 or 0
local count = (#ARGV - 8 - grown) / (inbox and 3 or 1)
local prevs, others = nil, 0
if ordered == 1 then
  prevs = {}
  for place in string.gmatch(ARGV[#ARGV], '%d+') do
    prevs[#prevs + 1] = tonumber(place)
  end
  count = #prevs
  others = #ARGV - 9 - count * (inbox and 3 or 1)
end
local clock = call('TIME')
local at = clock[1] .. '.' .. string.sub('00000' .. clock[2], -6)
local now = clock[1] * 1000 + clock[2] / 1000
local meta = call('HMGET', KEYS[1], 'epoch', 'seq', 'said', 'tag', 'turn', 'due')
local epoch, tag, turn, due = meta[1], meta[4] or '-', meta[5], tonumber(meta[6] or 0)
local before, under = tonumber(meta[2] or 0), tonumber(meta[3] or 0)
local seq, said, made = before, under, nil

local function new_epoch(clock)
  return string.format('%x%05x', clock[1], clock[2])
end

local known, fresh = {}, false  -- `fresh`: there is a mid
for i = 1, count do
  fresh = fresh or ARGV[8 + i] ~= ''
end
local plain = not inbox  -- all of it is new
if turn and epoch and fresh then
  for n = 3, turn == '0' and 3 or 4 do
    local found = call('HMGET', KEYS[n], unpack(ARGV, 9, 8 + count + others))
    for i = 1, count + others do
      if found[i] then
        known[i], plain = found[i], plain and i > count
      end
    end
  end
end
for i = count + 1, count + others do
  plain = plain and known[i]
end

-- As shares.py has it: count, bytes, since when, and the number of the last one.
local read, tell
local notes = {}  -- what is to be noted, by who tells; false: nothing any more
if inbox then
read = function(text)
  local count, bytes, since, last = string.match(text, '^(%d+) (%d+) (%d+) (%d+)$')
  if last and tonumber(last) > seq - size and now - since <= ttl then
    return tonumber(count), tonumber(bytes), since
  end
end

tell = function(teller, bytes)
  local text = notes[teller]
  if text == nil then
    text = call('HGET', KEYS[6], teller)
  end
  local count, total, since
  if text then
    count, total, since = read(text)
  elseif call('HLEN', KEYS[6]) >= 2 * size then
    local all = call('HGETALL', KEYS[6])
    for i = 1, #all, 2 do
      if not read(all[i + 1]) then
        call('HDEL', KEYS[6], all[i])
      end
    end
  end
  count, total = (count or 0) + 1, (total or 0) + bytes
  if count == 1 or (count <= share and total <= share_bytes) then
    since = since or string.format('%.0f', math.floor(now))
    return string.format('%.0f %.0f %s %.0f', count, total, since, seq + 1)
  end
end
end

local lengths, bodies, numbers, answers = ARGV[6], ARGV[7], {}, {}
if plain then
  said, seq = under + ARGV[8], before + count
  if fresh then
    local last = 0
    for i = 1, count do
      if ARGV[8 + i] ~= '' then
        numbers[last + 1], numbers[last + 2] = ARGV[8 + i], before + i
        last = last + 2
      end
    end
  end
else
  local i, start, kept, each, lacks = 0, 1, {}, {}, {}
  for place = count + 1, count + others do
    lacks[place] = not known[place]
  end
  for length in string.gmatch(ARGV[6], '%d+') do
    local body = string.sub(ARGV[7], start, start + length - 1)
    local bytes = #body - string.find(body, '\n', 1, true)
    local teller, answered = '', ''
    i, start = i + 1, start + length
    if inbox then
      local parties = 7 + count + others + 2 * i
      teller, answered = ARGV[parties], ARGV[parties + 1]
    end
    local late = prevs and not known[i] and lacks[prevs[i]]
    local told = teller ~= '' and not known[i] and not late and tell(teller, bytes)
    if known[i] then
      local entry = call('XREVRANGE', KEYS[2], known[i], '-', 'COUNT', 1)[1]
      local when = entry and string.match(entry[2][1], '^%S+') or at
      answers[i] = '=' .. known[i] .. ':' .. when
    elseif late then
      answers[i], lacks[i] = '?', true
    elseif teller ~= '' and not told then
      answers[i], lacks[i] = '!', true
    else
      if told then
        notes[teller] = told
      elseif answered ~= '' then
        notes[answered] = false
      end
      seq, said = seq + 1, said + bytes
      kept[#kept + 1], each[#each + 1] = body, length
      answers[i] = string.format('%.0f', seq)
      if ARGV[8 + i] ~= '' then
        numbers[#numbers + 1], numbers[#numbers + 2] = ARGV[8 + i], seq
      end
    end
  end
  lengths, bodies = table.concat(each, ','), table.concat(kept)
end

if seq == before then
  if waits == 1 and epoch then
    call('HSET', KEYS[1], 'epoch', epoch)  -- so that WAIT has something to wait for
  end
  return at .. ' ' .. (epoch or '-') .. ' ' .. table.concat(answers, ' ')
end

local last = epoch and epoch == ARGV[2] and tonumber(ARGV[3])
if not epoch then
  made = ARGV[2] ~= '' and ARGV[3] == '0' and ARGV[2] or new_epoch(clock)
  call('HSET', KEYS[1], 'epoch', made)
  call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
  turn, tag = nil, '-'
elseif last and (last > before or (last == before and ARGV[4] ~= '' and ARGV[4] ~= tag)) then
  -- Redis came back without messages that others have seen.
  made = new_epoch(clock)
  call('HSET', KEYS[1], 'epoch', made)
end
local first = string.format('%.0f', before + 1)
local id = first .. '-' .. under
local about = at .. ' ' .. ARGV[5] .. ' ' .. tag .. ' ' .. lengths
local added = redis.pcall('XADD', KEYS[2], 'NOMKSTREAM', id, about, bodies)
if not added then
  call('XADD', KEYS[2], id, about, bodies)
  due = 0
elseif type(added) == 'table' then
  if not string.find(added.err, 'equal or smaller', 1, true) then
    return added
  end
  -- The numbers are older than the messages: somebody has put them back.
  made, due = new_epoch(clock), 0
  call('HSET', KEYS[1], 'epoch', made)
  call('DEL', KEYS[2], KEYS[5])
  call('XADD', KEYS[2], id, about, bodies)
end
epoch = made or epoch
if inbox then
  for teller, text in pairs(notes) do
    if text then
      call('HSET', KEYS[6], teller, text)
    else
      call('HDEL', KEYS[6], teller)
    end
  end
  call('PEXPIRE', KEYS[6], ttl)
end

local stored = {'seq', seq, 'said', said, 'tag', ARGV[5]}

-- Up to which number all may go
local upto
if under % (most / 8) + said - under >= most / 8 then
  local marks, left = call('HGET', KEYS[1], 'marks') or '', {}
  for number, under in string.gmatch(marks .. seq + 1 .. '-' .. said .. ' ', '(%d+)%-(%d+) ') do
    if said - under >= most and tonumber(number) <= seq then
      upto, left = number, {}
    end
    left[#left + 1] = number .. '-' .. under .. ' '
  end
  stored[#stored + 1], stored[#stored + 2] = 'marks', table.concat(left)
end
local tidy = before % 32 + seq - before >= 32
if tidy and seq - size >= tonumber(upto or 1) then
  -- What is in one entry with the oldest one stays.
  local oldest = string.format('%.0f', seq - size + 1)
  local entry = call('XREVRANGE', KEYS[2], oldest, '-', 'COUNT', 1)[1]
  upto = entry and string.match(entry[1], '^%d+')
end
if upto then
  call('XTRIM', KEYS[2], 'MINID', upto)
  for _, number in ipairs(call('HKEYS', KEYS[5])) do
    if tonumber(number) < tonumber(upto) then
      call('HDEL', KEYS[5], number)
    end
  end
end

if #numbers > 0 then
  if not turn then
    turn, due = '0', 0
    stored[#stored + 1], stored[#stored + 2] = 'turn', turn
    stored[#stored + 1], stored[#stored + 2] = 'turned', math.floor(now)
  elseif tidy then
    local turned = tonumber(call('HGET', KEYS[1], 'turned') or 0)
    if now - turned >= mids_for and call('HLEN', KEYS[turn % 2 + 3]) >= size then
      -- Both are asked from the first turn on.
      turn, due = turn == '1' and '2' or '1', 0
      call('UNLINK', KEYS[turn % 2 + 3])
      stored[#stored + 1], stored[#stored + 2] = 'turn', turn
      stored[#stored + 1], stored[#stored + 2] = 'turned', math.floor(now)
    end
  end
  call('HSET', KEYS[turn % 2 + 3], unpack(numbers))
end
if now < due then
  call('HSET', KEYS[1], unpack(stored))
else
  -- What lives a sixteenth longer need not be given a new life so often.
  local longer = math.floor(ttl / 16)
  stored[#stored + 1], stored[#stored + 2] = 'due', math.floor(now) + longer
  call('HSET', KEYS[1], unpack(stored))
  call('PEXPIRE', KEYS[1], meta_ttl + longer)
  for n = 2, 4 do
    call('PEXPIRE', KEYS[n], ttl + longer)
  end
end

if grown == 1 then
  local id, growths, pieces = ARGV[#ARGV], KEYS[#KEYS - 1], KEYS[#KEYS]
  local n = tonumber(string.match(call('HGET', growths, id) or '', '^%d+') or 0)
  call('HDEL', growths, id)
  if call('EXISTS', growths) == 0 then
    call('UNLINK', pieces)
  else
    for i = 64, n, 64 do  -- as grow.lua has them
      call('HDEL', pieces, i .. ':' .. id)
    end
    for i = n - n % 64 + 1, n do
      call('HDEL', pieces, i .. ':' .. id)
    end
  end
end
if made then
  call('PUBLISH', ARGV[1], '0 ' .. at .. ' - {"event":"made"}\n')
end
local told = first .. ' ' .. epoch .. ' ' .. about .. ' '
if #bodies < 2048 then
  call('PUBLISH', ARGV[1], told .. bodies)
else
  call('PUBLISH', ARGV[1], told)
  call('PUBLISH', ARGV[1], bodies)
end
return at .. ' ' .. epoch .. ' ' .. (plain and '+' .. first or table.concat(answers, ' '))
