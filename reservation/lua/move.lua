--- Move one reservation: from nothing to its first state, or from one state to the next.
--
-- Guarantee: everything below happens together or not at all. A refusal writes nothing.
--   The claims of the reservation become exactly the claims asked for: the script takes the
--   difference, so what was held is given back once, whatever the cause and however often
--   the move is retried. The event is in the outbox if and only if the move was made.
--   What is left of an offer and would do for somebody in line is for the line only.
--
-- KEYS: campaign used caps tally reservations deadlines index outbox queue places
--   ranking final queues, which a new reservation that serves no place goes without
-- ARGV: campaign digest version fingerprint revision opens_at opens_refusal closes_at
--       closes_refusal first_refusal last_refusal heeds_status user sku quantity state hold_ms
--       deadline facts type data queued serves claims...
--   version        the version this move was decided on; 0 makes a new reservation
--   fingerprint    of the request body, to tell a replay from a reused key
--   revision       of the campaign that the move was decided on; 0 when none matters
--   opens_at       ms; before it the answer is opens_refusal; 0 is no bound
--   closes_at      ms; from it on the answer is closes_refusal; 0 is no bound
--   first_refusal  known by the caller and answered before the windows, or empty
--   last_refusal   known by the caller and answered after the windows, or empty
--   heeds_status   1 if a paused or closed campaign refuses this
--   hold_ms        the deadline is this far from now; 0 takes `deadline` (ms, 0 is none)
--   queued         the counter that the queue of this sku is for
--   serves         1 if this serves the user's place in the queue, whose turn it must be
--   claims         four each: counter n cap refusal. A counter that ends in @ is the user's
--                  own; one that begins with # is ranked. An empty cap is the one kept in the
--                  store. Claims whose refusal begins with ? are taken or left out together.
--
-- Outcomes, in order of precedence: replayed idempotency_mismatch conflict
--   reservation_not_found store_unavailable stale first_refusal ended closes_refusal
--   opens_refusal paused last_refusal refusal-of-the-first-claim-that-does-not-hold moved
-- Reply: {outcome, now_ms, record}; the record is empty where there is none.

--@include record
--@include campaign
--@include claims

local campaign, digest, expected = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local is_new = expected == 0

-- 1. The reservation as it stands: a replay, or the version that was decided on.
local packed = redis.call('HGET', KEYS[5], digest)
local record
if packed then
  record = cmsgpack.unpack(packed)
  if is_new then
    if record[FINGERPRINT] == ARGV[4] then
      return { 'replayed', now, packed }
    end
    return { 'idempotency_mismatch', now, packed }
  end
  if record[VERSION] ~= expected then
    return { 'conflict', now, packed }
  end
elseif not is_new then
  return { 'reservation_not_found', now, '' }
end

-- 2. The campaign: there, as the caller knows it, and in its window by this clock.
local refusal, waiting = refused_by_campaign(KEYS[1], now, 5, ARGV[12] == '1')
if refusal then
  return { refusal, now, '' }
end

-- 3. The one rule: used + n <= cap, for every claim.
local user, sku, quantity = ARGV[13], ARGV[14], tonumber(ARGV[15])
local wanted = {}
for i = 24, #ARGV, 4 do
  wanted[#wanted + 1] = { ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3] }
end
local queued, leave
if waiting > 0 or ARGV[23] == '1' then
  -- Here, since every run makes its functions anew, and most runs need none of these.
  --@include queue
  local cap, used = redis.call('HGET', KEYS[3], ARGV[22]) or 0, redis.call('HGET', KEYS[2], ARGV[22]) or 0
  if ARGV[23] == '1' then
    if not has_turn(KEYS[9], KEYS[10], sku, user, cap - used) then
      return { 'conflict', now, '' }
    end
    leave = leave_queue
  elseif suffices_for_some(KEYS[9], KEYS[10], sku, cap - used) then
    queued = ARGV[22]
  end
end
local steps, claims
local held = record and record[CLAIMS] or {}
refusal, steps, claims = weigh_claims(held, wanted, user, KEYS[2], KEYS[3], queued, KEYS[11])
if refusal then
  return { refusal, now, '' }
end

-- 4. Nothing can refuse any more: write.
--@include ranking
--@include apply
--@include index
apply_claims(steps, KEYS[2], KEYS[1], KEYS[11], KEYS[12], now)
if leave then
  leave(KEYS[1], KEYS[4], KEYS[9], KEYS[10], KEYS[13], campaign, sku, user)
end

local state, hold_ms, deadline = ARGV[16], tonumber(ARGV[17]), tonumber(ARGV[18])
if hold_ms > 0 then
  deadline = now + hold_ms
end
local reservation_id = campaign .. '.' .. digest
if deadline > 0 then
  redis.call('ZADD', KEYS[6], deadline, reservation_id)
elseif record and record[DEADLINE] > 0 then
  redis.call('ZREM', KEYS[6], reservation_id)
end

if record then
  redis.call('HINCRBY', KEYS[4], record[STATE] .. '/' .. sku, -record[QUANTITY])
else
  record = { [USER] = user, [SKU] = sku, [CREATED_AT] = now, [FINGERPRINT] = ARGV[4], [VERSION] = 0 }
  remember(KEYS[7], user, reservation_id)
end
redis.call('HINCRBY', KEYS[4], state .. '/' .. sku, quantity)

record[STATE] = state
record[VERSION] = record[VERSION] + 1
record[QUANTITY] = quantity
record[CLAIMS] = claims
record[UPDATED_AT] = now
record[DEADLINE] = deadline
record[FACTS] = ARGV[19]
packed = cmsgpack.pack(record)
redis.call('HSET', KEYS[5], digest, packed)
redis.call('XADD', KEYS[8], '*', 'type', ARGV[20], 'id', reservation_id, 'record', packed, 'data', ARGV[21])
if not is_new then
  -- For those who watch it. Nobody can watch what is only just made.
  redis.call('PUBLISH', 'doorbuster:moved:' .. reservation_id, record[VERSION])
end
return { 'moved', now, packed }
