--- Take a place in the queue for an offer that is sold out, change it, or give it up.
--
-- Guarantee: nobody stands in line for what could be had at once, or for what the user's own
--   limits would refuse. A user has one place a sku; another quantity is another place, at the end.
--
-- KEYS: campaign used caps tally places queue queues
-- ARGV: campaign revision opens_at opens_refusal closes_at closes_refusal first_refusal
--       last_refusal sku user quantity details queued claims...
--   quantity       units wanted; 0 gives the place up, and nothing else is looked at
--   details        kept with the place, unread
--   queued         the counter that the queue is for
--   the others     as in move.lua
--
-- Outcomes, in order of precedence: store_unavailable stale first_refusal ended closes_refusal
--   opens_refusal paused last_refusal refusal-of-the-first-other-claim-that-does-not-hold
--   wrong_state (it can be had at once) placed left absent
-- Reply: {outcome, now_ms, position}; the first in line has position 1; 0 where there is none.

--@include campaign
--@include claims
--@include queue

local campaign, sku, user, quantity = ARGV[1], ARGV[9], ARGV[10], tonumber(ARGV[11])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if quantity == 0 then
  if leave_queue(KEYS[1], KEYS[4], KEYS[6], KEYS[5], KEYS[7], campaign, sku, user) then
    return { 'left', now, 0 }
  end
  return { 'absent', now, 0 }
end

local refusal = refused_by_campaign(KEYS[1], now, 2, true)
if refusal then
  return { refusal, now, 0 }
end
local others = {}
for i = 14, #ARGV, 4 do
  if ARGV[i] ~= ARGV[13] then
    others[#others + 1] = { ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3] }
  end
end
refusal = weigh_claims({}, others, user, KEYS[2], KEYS[3], nil)
if refusal then
  return { refusal, now, 0 }
end
local has_place = redis.call('ZSCORE', KEYS[6], user)
if not has_place and redis.call('EXISTS', KEYS[6]) == 0 then
  local cap = tonumber(redis.call('HGET', KEYS[3], ARGV[13]) or 0)
  local used = tonumber(redis.call('HGET', KEYS[2], ARGV[13]) or 0)
  if used + quantity <= cap then
    return { 'wrong_state', now, 0 }
  end
end
local before = units_of(KEYS[5], sku, user)
if before ~= quantity then
  if not has_place then
    redis.call('HINCRBY', KEYS[1], 'waiting', 1)
    redis.call('SADD', KEYS[7], campaign .. '/' .. sku)
  end
  redis.call('ZADD', KEYS[6], redis.call('HINCRBY', KEYS[1], 'tickets', 1), user)
  redis.call('HINCRBY', KEYS[4], 'waiting/' .. sku, quantity - before)
end
redis.call('HSET', KEYS[5], sku .. '/' .. user, quantity .. ' ' .. ARGV[12])
return { 'placed', now, redis.call('ZRANK', KEYS[6], user) + 1 }
