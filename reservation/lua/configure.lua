--- Create a campaign in the store, or change its document, caps or status.
--
-- Guarantee: the document, the caps and the event change together or not at all, and never
--   on top of a revision that the caller has not seen. A cap never falls below what is held
--   and sold.
--
-- KEYS: campaign used caps campaigns changes outbox unsettled
-- ARGV: campaign revision status document ends_at above caps...
--   revision  the revision this change was decided on; 0 makes a new campaign
--   status    running, paused or closed
--   ends_at   ms; from then on the ranking stands
--   above     the new revision is above this one: the book may have one that the store has lost
--   caps      two each: counter cap
--
-- Outcomes, in order of precedence: conflict below_used configured
-- Reply: {outcome, now_ms, revision, counter, entry_id}; counter names the cap that would be below its
--   use, and is empty otherwise. So is the entry of the outbox where none was written.

local campaign, expected, status, document = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local current = redis.call('HGET', KEYS[1], 'revision') or '0'
if current ~= expected then
  return { 'conflict', now, tonumber(current), '', '' }
end
for i = 7, #ARGV, 2 do
  local used = tonumber(redis.call('HGET', KEYS[2], ARGV[i]) or 0)
  if used > tonumber(ARGV[i + 1]) then
    return { 'below_used', now, tonumber(current), ARGV[i], '' }
  end
end

local revision = math.max(tonumber(current), tonumber(ARGV[6])) + 1
redis.call('HSET', KEYS[1], 'revision', revision, 'status', status, 'document', document,
  'ends_at', ARGV[5], 'changed_at', now)
for i = 7, #ARGV, 2 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
end
-- The shard's running number of changes lets every gateway ask for just what it has not seen.
redis.call('ZADD', KEYS[4], redis.call('INCR', KEYS[5]), campaign)
redis.call('INCRBY', KEYS[7], 1)
local entry_id = redis.call('XADD', KEYS[6], '*', 'type', 'campaign_changed', 'id', campaign, 'revision', revision,
  'status', status, 'document', document, 'at', now)
return { 'configured', now, revision, '', entry_id }
