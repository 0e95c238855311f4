-- Read a page of a topic's log; make the topic's epoch if it has none, and a new one
-- if the calling process was given numbers that are yet to come.
-- KEYS: meta, log, mids0, mids1, gone, growths, pieces
-- ARGV: limit, after or '', before or '', the epoch to resume or '', the tag of `after` or
--       '', the bytes of data that the page may have or '', the messages and bytes that
--       may be kept, ttl and meta's ttl in ms, meta's ttl where nothing was ever kept; the
--       channel, which is told where there is a new epoch: see publish.lua; and the epoch,
--       number and tag that the process has seen, if any
-- Returns the epoch, the newest number, its tag, 1 if all after `after` is there or else
-- 0, 1 if it is claimed, 1 if the messages are in reverse order or else 0, and these: of
-- each its number, time, tag and the tag before; then its body. A deleted one has none, and
-- one that we did not write its number alone. (To put them together would take Lua 1 ns for
-- each byte.) Last what grows: see grow.lua.
local clock = redis.call('TIME')
local limit, after, before = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local size, most, room = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[6])
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'plain', 'tag', 'said', 'gone')
local epoch, seq, plain = meta[1], tonumber(meta[2] or 0), meta[3] and 1 or 0
local tag, said = meta[4] or '-', tonumber(meta[5] or 0)

local seen = epoch and epoch == ARGV[13] and tonumber(ARGV[14])
if not epoch or (seen and (seen > seq or (seen == seq and ARGV[15] ~= '' and ARGV[15] ~= tag))) then
  local empty = not epoch and ARGV[13] ~= '' and ARGV[14] == '0'
  if not epoch then
    redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
  end
  epoch = empty and ARGV[13] or string.format('%x%05x', clock[1], clock[2])
  redis.call('HSET', KEYS[1], 'epoch', epoch)
  local at = string.format('%d.%06d', clock[1], clock[2])
  redis.call('PUBLISH', ARGV[12], '0 ' .. at .. ' - {"event":"made"}\n')
end
redis.call('PEXPIRE', KEYS[1], seq > 0 and ARGV[10] or ARGV[11])

local low = math.max(seq - size + 1, 1)
local oldest_time = clock[1] + clock[2] / 1e6 - ARGV[9] / 1000
local gone = {}
if meta[6] then
  local all = redis.call('HGETALL', KEYS[5])
  for i = 1, #all, 2 do
    if tonumber(all[i]) >= low then
      gone[#gone + 1] = {tonumber(all[i]), all[i + 1]}
    end
  end
end

-- Returns up to `count` messages from one number to another, in this order, and whether
-- the bytes of the page ended them.
local function read(from, to, count)
  local up, items, bodies, bytes, upto = from <= to, {}, {}, 0, nil
  local deleted = {}
  for _, each in ipairs(gone) do
    if each[1] >= math.min(from, to) and each[1] <= math.max(from, to) then
      deleted[#deleted + 1] = each
    end
  end
  table.sort(deleted, function(a, b) return up == (a[1] < b[1]) and a[1] ~= b[1] end)
  local function pass(limit)  -- the deleted ones before `limit`
    while deleted[1] and #items < count and (not limit or up == (deleted[1][1] < limit)) do
      local each = table.remove(deleted, 1)
      if (tonumber(string.match(each[2], '^%S+')) or 0) > oldest_time then
        items[#items + 1] = each[1] .. ' ' .. each[2]
        bodies[#items] = ''
      end
    end
  end
  local chunk = count
  if room and seq > 0 and count * said / seq > room / 2 then
    chunk = math.max(math.floor(room * seq / math.max(said, 1)), 4)
  end
  local next = from
  while #items < count do
    local asked = math.min(count - #items, chunk)
    local first, last, found = string.format('%.0f', next), string.format('%.0f', to), nil
    if up then
      found = redis.call('XRANGE', KEYS[2], first, last, 'COUNT', asked)
    else
      found = redis.call('XREVRANGE', KEYS[2], first, last, 'COUNT', asked)
    end
    for _, entry in ipairs(found) do
      local number, under = string.match(entry[1], '^(%d+)%-(%d+)$')
      local fields = entry[2]
      number = tonumber(number)
      pass(number)
      local hidden = number < seq and said - under > most
      if fields[1] ~= 'at' or fields[3] ~= 'body' or #fields ~= 4 then
        if not hidden then
          items[#items + 1] = string.format('%.0f', number)
          bodies[#items] = ''
        end
      elseif hidden or (tonumber(string.match(fields[2], '^%S+')) or 0) <= oldest_time then
        if not hidden then
          upto = math.max(upto or 0, number + 1)
        end
        if not up then
          return items, bodies, upto  -- the others are older
        end
      elseif #items < count then
        local body = fields[4]
        bytes = bytes + #body - (string.find(body, '\n', 1, true) or 0)
        if room and bytes > room and #items > 0 then
          return items, bodies, upto
        end
        items[#items + 1] = number .. ' ' .. fields[2]
        bodies[#items] = body
      end
      next = up and number + 1 or number - 1
    end
    if #found < asked then
      pass()
      break
    end
  end
  return items, bodies, upto
end

local recovered, items, bodies, upto = 0, {}, {}, nil
local resumes = ARGV[4] ~= ''
if resumes and after and epoch == ARGV[4] and after <= seq then
  if after == seq then
    recovered = (ARGV[5] == '' or ARGV[5] == tag) and 1 or 0
  else
    items, bodies, upto = read(after + 1, seq, math.max(limit, 1))
    local number, last = string.match(items[1] or '', '^(%d+) %S+ %S+ (%S+)$')
    if number and tonumber(number) == after + 1 and after + 1 >= low and (ARGV[5] == '' or ARGV[5] == last) then
      recovered = 1
    end
  end
end
local backwards = 0
if limit <= 0 then
  items, bodies = {}, {}
elseif resumes and recovered == 1 then
  -- read
elseif after and not resumes then
  items, bodies = {}, {}
  if after < seq then
    items, bodies, upto = read(math.max(after + 1, low), seq, limit)
  end
else
  backwards, items, bodies = 1, {}, {}
  local to = before and not resumes and before - 1 or seq
  if math.min(to, seq) >= low then
    items, bodies, upto = read(math.min(to, seq), low, limit)
  end
end
if upto then
  redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f', upto))
end

-- What grows: id, number of pieces, and when and by whom it was begun; and all of its text
local grown, now = {}, clock[1] * 1000 + math.floor(clock[2] / 1000)
local growths = redis.call('HGETALL', KEYS[6])
for i = 1, #growths, 2 do
  local id = growths[i]
  local n, heard, ttl, rest = string.match(growths[i + 1], '^(%d+) (%d+) (%d+) %d (.*)$')
  if now - heard <= tonumber(ttl) then
    local pieces = {}
    for k = 1, n do
      pieces[k] = redis.call('HGET', KEYS[7], k .. ':' .. id) or ''
    end
    grown[#grown + 1] = {id, n .. ' ' .. rest, table.concat(pieces)}
  end
end
return {epoch, seq, tag, recovered, plain, backwards, items, bodies, grown}
