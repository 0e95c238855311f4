-- Vote in a poll, close or open it, or only look.
-- KEYS: poll, voters, counts, all hashes
-- ARGV: 'vote', 'close', 'open' or 'look'; the id of one made at run time, or ''; voter, if
-- one is asked about; choice
-- Returns 0 if there is none with this id, false if a vote came too late, else the version, 1 if the poll is closed or
-- else 0, the voter's choice, and choice and count in turn.
-- A poll's first change gets the time as its version: where Redis has forgotten it, those
-- who knew the old ones take the new ones for newer.
local action, id, voter, choice = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if id ~= '' and redis.call('HGET', KEYS[1], 'id') ~= id then
  return 0
end
local function change()
  if redis.call('HEXISTS', KEYS[1], 'version') == 0 then
    local clock = redis.call('TIME')
    local first = string.format('%d%03d', clock[1], math.floor(clock[2] / 1000))
    redis.call('HSET', KEYS[1], 'version', first)
  end
  redis.call('HINCRBY', KEYS[1], 'version', 1)
end
local closed = redis.call('HEXISTS', KEYS[1], 'closed')
if action == 'vote' then
  if closed == 1 then
    return false
  end
  local before = redis.call('HGET', KEYS[2], voter)
  if before ~= choice then
    redis.call('HSET', KEYS[2], voter, choice)
    change()
    redis.call('HINCRBY', KEYS[3], choice, 1)
    if before and redis.call('HINCRBY', KEYS[3], before, -1) <= 0 then
      redis.call('HDEL', KEYS[3], before)
    end
    if id ~= '' then  -- a moment later than it, so that it never lacks votes
      local life = redis.call('PTTL', KEYS[1]) + 1000
      redis.call('PEXPIRE', KEYS[2], life)
      redis.call('PEXPIRE', KEYS[3], life)
    end
  end
elseif action == 'close' and closed == 0 then
  redis.call('HSET', KEYS[1], 'closed', 1)
  change()
  closed = 1
elseif action == 'open' and closed == 1 then
  change()
  redis.call('HDEL', KEYS[1], 'closed')
  closed = 0
end
local version = tonumber(redis.call('HGET', KEYS[1], 'version') or 0)
local mine = voter and redis.call('HGET', KEYS[2], voter) or false
return {version, closed, mine, redis.call('HGETALL', KEYS[3])}
