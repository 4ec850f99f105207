--- Forget entries of the outbox whose events are safe elsewhere.
--
-- Guarantee: an entry's events are taken off the count of the unsettled once, however often it is forgotten.
--
-- KEYS: outbox unsettled
-- ARGV: group entries...
--   entries  two each: entry_id events
--
-- Outcomes, in order of precedence: none
-- Reply: how many entries were there

local forgotten = 0
for i = 2, #ARGV, 2 do
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
  if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then
    forgotten = forgotten + 1
    redis.call('DECRBY', KEYS[2], ARGV[i + 1])
  end
end
return forgotten
