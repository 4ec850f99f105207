--- Hold every counter of a campaign against what its reservations claim of it.
--
-- Guarantee: one instant. It holds the store up for as long as it takes. With `mend`, each counter that differs
--   is moved by the difference, and nothing else changes.
--
-- KEYS: campaign used tally reservations terms users ranking
-- ARGV: campaign mend ranked
--   mend    1, or 0 to look only
--   ranked  what counters are called that the ranking keeps: # and a name, and @
--
-- Outcomes, in order of precedence: none
-- Reply: {counter, claimed, counted, ...} of those that differ: shared counters, users' own with the user
--   behind the @, and the units of each state and offer. Users are those of the reservations.

--@include record
--@include users

local campaign, mend, ranked_name = ARGV[1], ARGV[2] == '1', ARGV[3]
local differ = {}
if redis.call('EXISTS', KEYS[1]) == 0 then
  return differ
end

local function differs(name, claimed, counted)
  differ[#differ + 1] = name
  differ[#differ + 1] = claimed
  differ[#differ + 1] = counted
  return mend
end

local shared, tally, own, ranked = {}, {}, {}, {}
local reservations = redis.call('HGETALL', KEYS[4])
for i = 2, #reservations, 2 do
  local record = read_record(reservations[i], KEYS[5])
  local user, units = record[USER], record[STATE] .. '/' .. record[SKU]
  tally[units] = (tally[units] or 0) + record[QUANTITY]
  own[user] = own[user] or {}
  local claims = record[CLAIMS] or {}
  for j = 1, #claims, 2 do
    local name, n = claims[j], claims[j + 1]
    if string.sub(name, 1, 1) == '#' then
      ranked[user] = (ranked[user] or 0) + n
    elseif string.sub(name, -1) == '@' then
      own[user][name] = (own[user][name] or 0) + n
    else
      shared[name] = (shared[name] or 0) + n
    end
  end
end

local counted = redis.call('HGETALL', KEYS[2])
for i = 1, #counted, 2 do
  shared[counted[i]] = shared[counted[i]] or 0
end
for name, n in pairs(shared) do
  local had = tonumber(redis.call('HGET', KEYS[2], name) or 0)
  if had ~= n and differs(name, n, had) and redis.call('HINCRBY', KEYS[2], name, n - had) == 0 then
    redis.call('HDEL', KEYS[2], name)
  end
end

counted = redis.call('HGETALL', KEYS[3])
for i = 1, #counted, 2 do
  tally[counted[i]] = tally[counted[i]] or 0
end
for units, n in pairs(tally) do
  local had = tonumber(redis.call('HGET', KEYS[3], units) or 0)
  if string.sub(units, 1, 8) ~= 'waiting/' and had ~= n and differs(units, n, had) then
    redis.call('HINCRBY', KEYS[3], units, n - had)
  end
end

for user, claims in pairs(own) do
  local mine, moved = open_own(redis.call('HGET', KEYS[6], user), campaign), false
  for name in pairs(mine.counts) do
    claims[name] = claims[name] or 0
  end
  for name, n in pairs(claims) do
    local had = mine.counts[name] or 0
    if had ~= n and differs(name .. user, n, had) then
      mine.counts[name], moved = n, true
    end
  end
  if moved then
    redis.call('HSET', KEYS[6], user, pack_own(mine, campaign))
  end
end

counted = redis.call('ZRANGE', KEYS[7], 0, -1)
for i = 1, #counted do
  ranked[counted[i]] = ranked[counted[i]] or 0
end
for user, n in pairs(ranked) do
  local had = tonumber(redis.call('ZSCORE', KEYS[7], user) or 0)
  if had ~= n and differs(ranked_name .. user, n, had) then
    if tonumber(redis.call('ZINCRBY', KEYS[7], n - had, user)) == 0 then
      redis.call('ZREM', KEYS[7], user)
    end
  end
end
return differ
