--- Take a place in the queue for an offer that is sold out, change it, or give it up.
--
-- Guarantee: nobody stands in line for what could be had at once, or for what the user's own
--   limits would refuse. A user has one place a sku; another quantity is another place, at the end.
--
-- KEYS: campaign used caps tally users places queue queues fence
-- ARGV: campaign revision opens_at opens_refusal closes_at closes_refusal first_refusal
--       last_refusal sku user quantity details queued claims...
--   quantity       units wanted; 0 gives the place up, and nothing else is looked at
--   details        kept with the place, unread
--   queued         the counter that the queue is for
--   the others     as in reserve.lua
--
-- Outcomes, in order of precedence: store_unavailable stale first_refusal ended closes_refusal
--   opens_refusal paused last_refusal refusal-of-the-first-other-claim-that-does-not-hold
--   wrong_state (it can be had at once) placed left absent
-- Reply: {outcome, now_ms, position}; the first in line has position 1; 0 where there is none.

--@include campaign
--@include users
--@include claims
--@include queue

local campaign, sku, user, quantity = ARGV[1], ARGV[9], ARGV[10], tonumber(ARGV[11])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if quantity == 0 then
  if leave_queue(KEYS[1], KEYS[4], KEYS[7], KEYS[6], KEYS[8], campaign, sku, user) then
    return { 'left', now, 0 }
  end
  return { 'absent', now, 0 }
end

local refusal = refused_by_campaign(KEYS[1], KEYS[9], now, 2, true)
if refusal then
  return { refusal, now, 0 }
end
local others = {}
for _, claim in ipairs(read_claims(14, #ARGV)) do
  if claim[1] ~= ARGV[13] then
    others[#others + 1] = claim
  end
end
local own = open_own(redis.call('HGET', KEYS[5], user), campaign)
refusal = weigh_claims({}, others, user, own, nil, KEYS[2], KEYS[3])
if refusal then
  return { refusal, now, 0 }
end
local has_place = redis.call('ZSCORE', KEYS[7], user)
if not has_place and redis.call('EXISTS', KEYS[7]) == 0 then
  local cap = tonumber(redis.call('HGET', KEYS[3], ARGV[13]) or 0)
  local used = tonumber(redis.call('HGET', KEYS[2], ARGV[13]) or 0)
  if used + quantity <= cap then
    return { 'wrong_state', now, 0 }
  end
end
local before = units_of(KEYS[6], sku, user)
if before ~= quantity then
  if not has_place then
    redis.call('HINCRBY', KEYS[1], 'waiting', 1)
    redis.call('SADD', KEYS[8], campaign .. '/' .. sku)
  end
  redis.call('ZADD', KEYS[7], redis.call('HINCRBY', KEYS[1], 'tickets', 1), user)
  redis.call('HINCRBY', KEYS[4], 'waiting/' .. sku, quantity - before)
end
redis.call('HSET', KEYS[6], sku .. '/' .. user, quantity .. ' ' .. ARGV[12])
return { 'placed', now, redis.call('ZRANK', KEYS[7], user) + 1 }
