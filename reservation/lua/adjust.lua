--- Move counters of a campaign by what a snapshot found them to differ.
--
-- Guarantee: all together or not at all, and only where nobody has adjusted it since that snapshot: of two who found
--   the same, one moves it. No counter is set: what was sold since the snapshot stays counted.
--
-- KEYS: campaign used tally users ranking
-- ARGV: campaign adjusted steps...
--   adjusted  how often it had been, as the snapshot says
--   steps     four each: kind name user by
--   kind      used, tally, own (the user's) or ranked (by user)
--
-- Outcomes, in order of precedence: absent conflict adjusted
-- Reply: {outcome}

--@include users

local campaign = ARGV[1]
local live = redis.call('HMGET', KEYS[1], 'revision', 'adjusted')
if not live[1] then
  return { 'absent' }
end
if (live[2] or '0') ~= ARGV[2] then
  return { 'conflict' }
end
for i = 3, #ARGV, 4 do
  local kind, name, user, by = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  if kind == 'own' then
    local own = open_own(redis.call('HGET', KEYS[4], user), campaign)
    own.counts[name] = (own.counts[name] or 0) + by
    redis.call('HSET', KEYS[4], user, pack_own(own, campaign))
  elseif kind == 'ranked' then
    if tonumber(redis.call('ZINCRBY', KEYS[5], by, user)) == 0 then
      redis.call('ZREM', KEYS[5], user)
    end
  elseif kind == 'tally' then
    redis.call('HINCRBY', KEYS[3], name, by)
  elseif redis.call('HINCRBY', KEYS[2], name, by) == 0 then
    redis.call('HDEL', KEYS[2], name)
  end
end
redis.call('HINCRBY', KEYS[1], 'adjusted', 1)
return { 'adjusted' }
