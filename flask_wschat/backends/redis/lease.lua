-- Have what one holder at a time has, or give it back.
-- KEYS: lease
-- ARGV: holder, ms for which it is had; 0 gives it back
-- Returns 1 if the holder has it now, else 0.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
