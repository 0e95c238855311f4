-- Note how many connections a process has of some users in a topic, and tell who came
-- and who went.
-- KEYS: people, a hash from user to a JSON object from process to count; from "\0", in
--       a room, to the number of changes so far
-- ARGV: process, the channel to tell ('': nobody), then user and count in turn; a count
--       of 0 takes the user out. None at all: the process has nobody any more.
-- LIMITS is what the caller puts in its place, as each argument costs: the key's life in
-- ms, and without people.
-- To say the same again changes nothing, and tells nobody.
local life, empty = LIMITS
local people, process, channel = KEYS[1], ARGV[1], ARGV[2]
local VERSION = '\0'
local joined, left = {}, {}

-- As JSON. Half a surrogate pair has bytes here that are no UTF-8.
local function quoted(name)
  return (cjson.encode(name):gsub('\237([\160-\191])([\128-\191])', function(high, low)
    return string.format('\\u%04x', 0xd000 + (high:byte() - 128) * 64 + low:byte() - 128)
  end))
end

local function note(user, count)
  local text = redis.call('HGET', people, user)
  local fine, counts = pcall(cjson.decode, text or '{}')
  if not fine or type(counts) ~= 'table' then
    counts = {}  -- somebody else has written it
  end
  if counts[process] or count > 0 then
    counts[process] = count > 0 and count or nil
    if next(counts) then
      redis.call('HSET', people, user, cjson.encode(counts))
    else
      redis.call('HDEL', people, user)
      left[#left + 1] = quoted(user)
    end
    if not text then
      joined[#joined + 1] = quoted(user)
    end
  end
end

for i = 3, #ARGV, 2 do
  note(ARGV[i], tonumber(ARGV[i + 1]))
end
if #ARGV == 2 then
  for _, user in ipairs(redis.call('HKEYS', people)) do
    if user ~= VERSION then
      note(user, 0)
    end
  end
end
if channel ~= '' and #joined + #left > 0 then
  local clock = redis.call('TIME')
  local version, first = redis.call('HINCRBY', people, VERSION, 1), ''
  if version == 1 then
    -- What went before is forgotten: no number of that time may come again.
    version = clock[1] * 1000 + math.floor(clock[2] / 1000)
    redis.call('HSET', people, VERSION, string.format('%.0f', version))
    first = ',"first":true'
  end
  local news = string.format('{"joined":[%s],"left":[%s],"version":%.0f%s}',
    table.concat(joined, ','), table.concat(left, ','), version, first)
  local at = string.format('%d.%06d', clock[1], clock[2])
  redis.call('PUBLISH', channel, '0 ' .. at .. ' - {"event":"presence"}\n' .. news)
end
local version = redis.call('HEXISTS', people, VERSION)
redis.call('PEXPIRE', people, redis.call('HLEN', people) > version and life or empty)
