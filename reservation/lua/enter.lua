--- Begin to talk to a store: which run of it is this, and what of its outbox did the run begin with?
--
-- Guarantee: a new run is written down before anybody who enters does anything else, once, with what was
--   there when it began. Where there was a run before, the shard takes nothing for a while, so that all
--   who have seen more than there is now can say so.
--
-- KEYS: run fence outbox
-- ARGV: run_id proving_ms
--   run_id      the server process' own, another after every start and on every replica
--   proving_ms  how long a new run takes nothing
--
-- Outcomes, in order of precedence: none
-- Reply: {epoch, run_id, base, began_at}
--   epoch     how many runs there have been
--   base      the last entry that the outbox had been given when the run began
--   began_at  ms

local known = redis.call('HMGET', KEYS[1], 'run_id', 'epoch', 'base', 'began_at')
if known[1] ~= ARGV[1] then
  local time = redis.call('TIME')
  local last = '0-0'
  if redis.call('EXISTS', KEYS[3]) == 1 then
    local stream = redis.call('XINFO', 'STREAM', KEYS[3])
    for i = 1, #stream, 2 do
      if stream[i] == 'last-generated-id' then
        last = stream[i + 1]
      end
    end
  end
  if known[1] and redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('SET', KEYS[2], 'a new run is being proved', 'PX', ARGV[2])
  end
  known = { ARGV[1], (known[2] or 0) + 1, last, time[1] * 1000 + math.floor(time[2] / 1000) }
  redis.call('HSET', KEYS[1], 'run_id', known[1], 'epoch', known[2], 'base', known[3], 'began_at', known[4])
end
return { tonumber(known[2]), known[1], known[3], tonumber(known[4]) }
