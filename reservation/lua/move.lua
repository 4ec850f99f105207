--- Move one reservation from one state to the next.
--
-- Guarantee: everything below happens together or not at all. A refusal writes nothing.
--   The claims of the reservation become exactly the claims asked for: the script takes the
--   difference, so what was held is given back once, whatever the cause and however often
--   the move is retried. The event is in the outbox if and only if the move was made.
--   What is left of an offer and would do for somebody in line is for the line only.
--
-- KEYS: campaign used caps tally reservations terms users deadlines outbox unsettled queue places
--   ranking final fence trail
-- ARGV: campaign digest version revision opens_at opens_refusal closes_at closes_refusal
--       first_refusal last_refusal heeds_status user sku quantity state hold_ms deadline facts
--       type data queued claims...
--   version        the version this move was decided on
--   heeds_status   1 if a paused or closed campaign refuses this
--   hold_ms        the deadline is this far from now; 0 takes `deadline` (ms, 0 is none)
--   the others     as in reserve.lua
--
-- Outcomes, in order of precedence: reservation_not_found conflict store_unavailable stale
--   first_refusal ended closes_refusal opens_refusal paused last_refusal
--   refusal-of-the-first-claim-that-does-not-hold moved
-- Reply: {outcome, now_ms, record, entry_id}; the record is empty where there is none, and the entry of the
--   outbox where none was written.

--@include record
--@include campaign
--@include users
--@include claims

local campaign, digest = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- 1. The reservation: in the version that was decided on.
local packed = redis.call('HGET', KEYS[5], digest)
if not packed then
  return { 'reservation_not_found', now, '', '' }
end
local record = read_record(packed, KEYS[6])
if record[VERSION] ~= tonumber(ARGV[3]) then
  return { 'conflict', now, packed, '' }
end

-- 2. The campaign: there, as the caller knows it, and in its window by this clock.
local refusal, waiting, trailed = refused_by_campaign(KEYS[1], KEYS[15], now, 4, ARGV[11] == '1')
if refusal then
  return { refusal, now, '', '' }
end

-- 3. The one rule: used + n <= cap, for every claim.
local user, sku, quantity, queued = ARGV[12], ARGV[13], tonumber(ARGV[14]), nil
if waiting > 0 then
  -- Here, since every run makes its functions anew, and most runs need none of these.
  --@include queue
  local available = cap_of(ARGV[21], '', KEYS[3]) - used_of(ARGV[21], '', nil, KEYS[2])
  queued = suffices_for_some(KEYS[11], KEYS[12], sku, available) and ARGV[21] or nil
end
local own = open_own(redis.call('HGET', KEYS[7], user), campaign)
local steps, claims
refusal, steps, claims =
  weigh_claims(record[CLAIMS], read_claims(22, #ARGV), user, own, queued, KEYS[2], KEYS[3], KEYS[13])
if refusal then
  return { refusal, now, '', '' }
end

-- 4. Nothing can refuse any more: write.
--@include ranking
for _, step in ipairs(steps) do
  if string.sub(step[1], 1, 1) == '#' then
    close_ranking(KEYS[1], KEYS[13], KEYS[14], now)
  end
end
local used_key, users_key, ranking_key = KEYS[2], KEYS[7], KEYS[13]
--@include take

local state, hold_ms, deadline = ARGV[15], tonumber(ARGV[16]), tonumber(ARGV[17])
if hold_ms > 0 then
  deadline = now + hold_ms
end
local reservation_id = campaign .. '.' .. digest
if deadline > 0 then
  redis.call('ZADD', KEYS[8], deadline, reservation_id)
elseif record[DEADLINE] > 0 then
  redis.call('ZREM', KEYS[8], reservation_id)
end

redis.call('HINCRBY', KEYS[4], record[STATE] .. '/' .. sku, -record[QUANTITY])
redis.call('HINCRBY', KEYS[4], state .. '/' .. sku, quantity)
record[STATE] = state
record[VERSION] = record[VERSION] + 1
record[QUANTITY] = quantity
record[CLAIMS] = claims
record[UPDATED_AT] = now
record[DEADLINE] = deadline
record[FACTS] = ARGV[18]
packed = cmsgpack.pack(record)
redis.call('HSET', KEYS[5], digest, packed)
if trailed then
  redis.call('XADD', KEYS[16], '*', 'digests', digest)
end
redis.call('INCRBY', KEYS[10], 1)
local entry_id = redis.call('XADD', KEYS[9], '*', 'type', ARGV[19], 'id', reservation_id,
  'record', packed, 'data', ARGV[20])
-- For those who watch it.
redis.call('PUBLISH', 'doorbuster:moved:' .. reservation_id, record[VERSION])
return { 'moved', now, packed, entry_id }
