--- Lift the fence: what the store had lost has been brought back, as far as the book knows it.
--
-- Guarantee: what was seen of the outbox up to now is not held against this run any more.
--
-- KEYS: run fence outbox missed
-- ARGV: none
--
-- Outcomes, in order of precedence: none
-- Reply: 1 if there was a fence

if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('EXISTS', KEYS[3]) == 1 then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'base', time[1] * 1000 + math.floor(time[2] / 1000) .. '-0')
end
redis.call('DEL', KEYS[4])
return redis.call('DEL', KEYS[2])
