--- Forget entries of the outbox whose events are safe elsewhere.
--
-- Guarantee: an entry's events are taken off the count of the unsettled once, however often it is forgotten.
--   Where no entry is left, none is unsettled, whatever was counted: how many events an entry had that nobody
--   can read, nobody knows.
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
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('SET', KEYS[2], 0)
end
return forgotten
