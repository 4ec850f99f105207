--- Set caps that a main order grants in a campaign, or takes back.
--
-- Guarantee: an order's older word never replaces a newer one, and no cap is set by rules that
--   the campaign no longer has.
--
-- KEYS: campaign caps
-- ARGV: revision order version caps...
--   revision  of the campaign that the caps were decided on
--   version   of the order that the caps were decided on
--   caps      two each: counter cap
--
-- Outcomes, in order of precedence: stale outdated granted
-- Reply: {outcome, now_ms}

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('HGET', KEYS[1], 'revision') ~= ARGV[1] then
  return { 'stale', now }
end
local mark = 'order:' .. ARGV[2]
if tonumber(redis.call('HGET', KEYS[2], mark) or 0) > tonumber(ARGV[3]) then
  return { 'outdated', now }
end
redis.call('HSET', KEYS[2], mark, ARGV[3])
for i = 4, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
return { 'granted', now }
