-- The queue for an offer: users in the order in which they came, each with the units that they want.

-- How far back a place may be and still be served over the heads of those who want more than there is.
local AHEAD_MAX = 100

-- How many units the place of `user` is for.
local function units_of(places_key, sku, user)
  return tonumber(string.match(redis.call('HGET', places_key, sku .. '/' .. user) or '0', '^%d+'))
end

-- Whether the `available` units would do for somebody among the first in line.
local function suffices_for_some(queue_key, places_key, sku, available)
  if available > 0 then
    for _, other in ipairs(redis.call('ZRANGE', queue_key, 0, AHEAD_MAX)) do
      if units_of(places_key, sku, other) <= available then
        return true
      end
    end
  end
  return false
end

-- Whether it is this user's turn: everybody ahead wants more than the `available` units.
local function has_turn(queue_key, places_key, sku, user, available)
  local ahead = redis.call('ZRANK', queue_key, user)
  if not ahead or ahead > AHEAD_MAX then
    return false
  end
  if ahead > 0 then
    for _, other in ipairs(redis.call('ZRANGE', queue_key, 0, ahead - 1)) do
      if units_of(places_key, sku, other) <= available then
        return false
      end
    end
  end
  return true
end

-- Give the user's place up. Whether there was one.
local function leave_queue(campaign_key, tally_key, queue_key, places_key, queues_key, campaign, sku, user)
  if redis.call('ZREM', queue_key, user) == 0 then
    return false
  end
  redis.call('HINCRBY', tally_key, 'waiting/' .. sku, -units_of(places_key, sku, user))
  redis.call('HDEL', places_key, sku .. '/' .. user)
  if redis.call('HINCRBY', campaign_key, 'waiting', -1) == 0 then
    redis.call('HDEL', campaign_key, 'waiting')
  end
  if redis.call('EXISTS', queue_key) == 0 then
    redis.call('SREM', queues_key, campaign .. '/' .. sku)
  end
  return true
end
