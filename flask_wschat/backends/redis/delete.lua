-- Take a message back: its number, time and tags stay, and its subscribers are told.
-- KEYS: meta, log, gone. ARGV: number, channel, the messages and bytes that may be kept,
--       meta's ttl in ms
-- What came with it in one call leaves the log too, and is kept in `gone`: of each
-- <time> <tag> <tag before> <bytes said before it>, a line feed and its body.
-- Returns 1, or 0 if it is not kept.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'said')
local seq, number = tonumber(meta[2] or 0), tonumber(ARGV[1])
if not meta[1] or number < 1 or number > seq or number <= seq - ARGV[3] then
  return 0
end
local function visible(under)
  return number == seq or meta[3] - under <= tonumber(ARGV[4])
end

local entry = redis.call('XREVRANGE', KEYS[2], ARGV[1], '-', 'COUNT', 1)[1] or {'', {''}}
local first, under = string.match(entry[1], '^(%d+)%-(%d+)$')
local at, tag, before, lengths = string.match(entry[2][1], '^(%S+) (%S+) (%S+) ([%d,]+)$')
local gone, found, start = {}, false, 1
for length in string.gmatch(lengths or '', '%d+') do
  local body = string.sub(entry[2][2], start, start + length - 1)
  local about = at .. ' ' .. tag .. ' ' .. before
  if number == tonumber(first) then
    found = visible(under)
  else
    about = about .. ' ' .. under .. '\n' .. body
  end
  gone[#gone + 1] = string.format('%.0f', first)
  gone[#gone + 1] = about
  first, start, before = first + 1, start + length, tag
  under = under + #body - (string.find(body, '\n', 1, true) or 0)
end
if found then
  redis.call('HSET', KEYS[1], 'gone', 1)
  redis.call('HSET', KEYS[3], unpack(gone))
  redis.call('XDEL', KEYS[2], entry[1])
else
  local text = redis.call('HGET', KEYS[3], ARGV[1]) or ''
  local about, under = string.match(text, '^(%S+ %S+ %S+) (%d+)\n')
  if not about or not visible(under) then
    return 0
  end
  redis.call('HSET', KEYS[3], ARGV[1], about)
end
redis.call('PEXPIRE', KEYS[3], ARGV[5])
local clock = redis.call('TIME')
local body = '{"event":"deleted"}\n' .. ARGV[1]
redis.call('PUBLISH', ARGV[2], string.format('0 %d.%06d - %s', clock[1], clock[2], body))
return 1
