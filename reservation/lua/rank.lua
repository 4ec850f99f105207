--- Read a campaign's ranking of users, highest first; from the campaign's end on, as it was then.
--
-- Guarantee: one instant of the ranking, and the last one before the end once that has passed.
--
-- KEYS: campaign ranking final
-- ARGV: limit user
--   user      whose own place is wanted, or empty
--
-- Outcomes, in order of precedence: live final
-- Reply: {outcome, now_ms, entries, score, above}: entries are user and score, alternately; score is the
--   user's own, empty without one; above is how many have more.

--@include ranking

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local outcome, ranking = 'live', KEYS[2]
if close_ranking(KEYS[1], KEYS[2], KEYS[3], now) then
  outcome, ranking = 'final', KEYS[3]
end
local entries = redis.call('ZRANGE', ranking, 0, tonumber(ARGV[1]) - 1, 'REV', 'WITHSCORES')
local score, above = false, 0
if ARGV[2] ~= '' then
  score = redis.call('ZSCORE', ranking, ARGV[2])
  if score then
    above = redis.call('ZCOUNT', ranking, '(' .. score, '+inf')
  end
end
return { outcome, now, entries, score or '', above }
