-- Read a page of a topic's log; make the topic's epoch if it has none, and a new one
-- if the calling process was given numbers that are yet to come.
-- KEYS: meta, log, mids0, mids1, gone, growths, pieces
-- ARGV: limit, after or '', before or '', the epoch to resume or '', the tag of `after` or
--       '', the bytes of data that the page may have or '', the messages and bytes that
--       may be kept, ttl and meta's ttl in ms, meta's ttl where nothing was ever kept; the
--       channel, which is told where there is a new epoch: see publish.lua; and the epoch,
--       number and tag that the process has seen, if any; 1 if what grows is asked for
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
  redis.call('PUBLISH', ARGV[12], '0 ' .. at .. ' - {"event":"made"}\n' .. epoch)
end
redis.call('PEXPIRE', KEYS[1], seq > 0 and ARGV[10] or ARGV[11])

local low = math.max(seq - size + 1, 1)
local oldest_time = clock[1] + clock[2] / 1e6 - ARGV[9] / 1000
local function is_hidden(number, under)
  return number < seq and said - under > most
end
local function is_expired(about)
  return (tonumber(string.match(about, '^%S+')) or 0) <= oldest_time
end

-- What is not in the log any more: number, what is known of it, body; see delete.lua.
local gone = {}
if meta[6] then
  local all = redis.call('HGETALL', KEYS[5])
  for i = 1, #all, 2 do
    local number, about, body = tonumber(all[i]), all[i + 1], ''
    local line = string.find(about, '\n', 1, true)
    local hidden = number < low
    if line then
      local under
      body = string.sub(about, line + 1)
      about, under = string.match(string.sub(about, 1, line - 1), '^(.*) (%d+)$')
      hidden = hidden or is_hidden(number, under)
    end
    if not hidden and not is_expired(about) then
      gone[#gone + 1] = {number, about, body}
    end
  end
end

-- Returns the messages of an entry: number, bytes said before it, what is known of it, body.
-- Of one that we did not write there is a number and no more.
local function messages(entry)
  local number, under = string.match(entry[1], '^(%d+)%-(%d+)$')
  local about, lengths = string.match(entry[2][1], '^(%S+ %S+ %S+) ([%d,]+)$')
  local all, start, bodies = {}, 1, entry[2][2]
  number = tonumber(number)
  for length in string.gmatch(lengths or '', '%d+') do
    local body = string.sub(bodies, start, start + length - 1)
    local line = string.find(body, '\n', 1, true)
    if not line or #body ~= tonumber(length) then
      return {{number, under}}
    end
    all[#all + 1] = {number + #all, under, about, body}
    start, under = start + length, under + #body - line
    about = #all > 1 and about or string.gsub(about, '(%S+) %S+$', '%1 %1')
  end
  return start == #bodies + 1 and all[1] and all or {{number, under}}
end

-- Returns up to `count` messages from one number to another, in this order, and the number
-- before which all are too old.
local function read(from, to, count)
  local up, items, bodies, bytes, upto = from <= to, {}, {}, 0, nil
  local least, highest = math.min(from, to), math.max(from, to)
  local full, over = count < 1, false
  local apart = {}
  for _, each in ipairs(gone) do
    if each[1] >= least and each[1] <= highest then
      apart[#apart + 1] = each
    end
  end
  table.sort(apart, function(a, b) return up == (a[1] < b[1]) and a[1] ~= b[1] end)

  local function add(number, about, body)
    bytes = bytes + #body - (string.find(body, '\n', 1, true) or 0)
    full = full or room and bytes > room and #items > 0
    if not full then
      items[#items + 1] = string.format('%.0f', number) .. about
      bodies[#items] = body
      full = #items == count
    end
  end
  local function pass(limit)  -- those that are not in the log, before `limit`
    while apart[1] and not full and (not limit or up == (apart[1][1] < limit)) do
      local each = table.remove(apart, 1)
      add(each[1], ' ' .. each[2], each[3])
    end
  end
  local function take(number, under, about, body)
    pass(number)
    local hidden = is_hidden(number, under)
    local expired = about and is_expired(about)
    if expired then
      upto = math.max(upto or 0, number + 1)
    end
    if number < least or (about and (hidden or expired)) then
      over = over or not up  -- the others are older
    elseif number <= highest and not hidden and not full then
      add(number, about and ' ' .. about or '', body or '')
    end
  end

  -- How many are in an entry is known once some of them are read.
  local chunk, seen, entries = count, 0, 0
  if room and seq > 0 and count * said / seq > room / 2 then
    chunk = math.max(math.floor(room * seq / math.max(said, 1)), 4)
  end
  local next, asked = from, up and 0 or 1
  local found = redis.call('XREVRANGE', KEYS[2], string.format('%.0f', from), '-', 'COUNT', 1)
  while true do
    for _, entry in ipairs(found) do
      local all = messages(entry)
      for i = 1, #all do
        if not full and not over then
          take(unpack(all[up and i or #all + 1 - i]))
        end
      end
      seen, entries = seen + #all, entries + 1
      next = up and math.max(from, all[#all][1] + 1) or all[1][1] - 1
    end
    if full or over or #found < asked or next < 0 then
      break
    end
    local wanted = math.min(count - #items, chunk, entries > 1 and chunk or 8)
    asked = math.max(math.ceil(wanted * entries / math.max(seen, 1)), 1)
    local start, stop = string.format('%.0f', next), string.format('%.0f', to)
    if up then
      found = redis.call('XRANGE', KEYS[2], start, stop, 'COUNT', asked)
    else
      found = redis.call('XREVRANGE', KEYS[2], start, '-', 'COUNT', asked)
    end
  end
  if not over then
    pass()
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
local growths = ARGV[16] == '1' and redis.call('HGETALL', KEYS[6]) or {}
for i = 1, #growths, 2 do
  local id = growths[i]
  local n, heard, ttl, rest = string.match(growths[i + 1], '^(%d+) (%d+) (%d+) %d (.*)$')
  if now - heard <= tonumber(ttl) then
    local names, texts = {}, {}
    for k = 64, n, 64 do  -- so many are one
      names[#names + 1] = k .. ':' .. id
    end
    for k = n - n % 64 + 1, n do
      names[#names + 1] = k .. ':' .. id
    end
    if #names > 0 then
      texts = redis.call('HMGET', KEYS[7], unpack(names))
      for k = 1, #names do
        texts[k] = texts[k] or ''
      end
    end
    grown[#grown + 1] = {id, n .. ' ' .. rest, table.concat(texts)}
  end
end
return {epoch, seq, tag, recovered, plain, backwards, items, bodies, grown}
