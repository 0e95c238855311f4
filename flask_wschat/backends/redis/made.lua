-- Store a poll that is made at run time, or forget it.
-- KEYS: poll, voters, counts, as in poll.lua
-- ARGV: id; to store it text and ms for which it lasts, to forget it nothing more
-- Returns id, text and time of the one that is stored now; where one was to be forgotten 1,
-- or 0 if it was not there.
-- As of one made later the versions are to be higher, however many this one has.
local known = redis.call('HMGET', KEYS[1], 'id', 'text', 'at')
if not ARGV[2] then
  return known[1] == ARGV[1] and redis.call('UNLINK', unpack(KEYS)) > 0 and 1 or 0
end
if known[1] then
  return known
end
local clock = redis.call('TIME')
local first, at = string.format('%d%06d', clock[1], clock[2]), string.format('%d.%06d', clock[1], clock[2])
redis.call('UNLINK', unpack(KEYS))
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'text', ARGV[2], 'at', at, 'version', first)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {ARGV[1], ARGV[2], at}
