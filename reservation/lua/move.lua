--- Move one reservation: from nothing to its first state, or from one state to the next.
--
-- Guarantee: everything below happens together or not at all. A refusal writes nothing.
--   The claims of the reservation become exactly the claims asked for: the script takes the
--   difference, so what was held is given back once, whatever the cause and however often
--   the move is retried. The event is in the outbox if and only if the move was made.
--
-- KEYS: campaign used caps tally reservations deadlines index outbox
-- ARGV: campaign digest version fingerprint revision opens_at opens_refusal closes_at
--       closes_refusal first_refusal last_refusal user sku quantity state hold_ms deadline
--       facts type data claims...
--   version        the version this move was decided on; 0 makes a new reservation
--   fingerprint    of the request body, to tell a replay from a reused key
--   revision       of the campaign that the move was decided on; 0 when none matters
--   opens_at       ms; before it the answer is opens_refusal; 0 is no bound
--   closes_at      ms; from it on the answer is closes_refusal; 0 is no bound
--   first_refusal  known by the caller and answered before the windows, or empty
--   last_refusal   known by the caller and answered after the windows, or empty
--   hold_ms        the deadline is this far from now; 0 takes `deadline` (ms, 0 is none)
--   claims         four each: counter n cap refusal. A counter that ends in @ is the user's
--                  own. An empty cap is the one kept in the store.
--
-- Outcomes, in order of precedence: replayed idempotency_mismatch conflict
--   reservation_not_found store_unavailable stale first_refusal ended closes_refusal
--   opens_refusal paused last_refusal refusal-of-the-first-claim-that-does-not-hold moved
-- Reply: {outcome, now_ms, record}; the record is empty where there is none.

--@include record
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
local live = redis.call('HMGET', KEYS[1], 'revision', 'status')
if not live[1] then
  return { 'store_unavailable', now, '' }
end
if ARGV[5] ~= '0' and ARGV[5] ~= live[1] then
  return { 'stale', now, '' }
end
if ARGV[10] ~= '' then
  return { ARGV[10], now, '' }
end
if is_new and live[2] == 'closed' then
  return { 'ended', now, '' }
end
local opens_at, closes_at = tonumber(ARGV[6]), tonumber(ARGV[8])
if closes_at > 0 and now >= closes_at then
  return { ARGV[9], now, '' }
end
if now < opens_at then
  return { ARGV[7], now, '' }
end
if is_new and live[2] == 'paused' then
  return { 'paused', now, '' }
end
if ARGV[11] ~= '' then
  return { ARGV[11], now, '' }
end

-- 3. The one rule: used + n <= cap, for every claim.
local user, sku, quantity = ARGV[12], ARGV[13], tonumber(ARGV[14])
local wanted = {}
for i = 21, #ARGV, 4 do
  wanted[#wanted + 1] = { ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3] }
end
local refusal, steps = weigh_claims(record and record[CLAIMS] or {}, wanted, user, KEYS[2], KEYS[3])
if refusal then
  return { refusal, now, '' }
end

-- 4. Nothing can refuse any more: write.
apply_claims(steps, KEYS[2])
local claims = {}
for _, claim in ipairs(wanted) do
  claims[#claims + 1] = claim[1]
  claims[#claims + 1] = claim[2]
end

local state, hold_ms, deadline = ARGV[15], tonumber(ARGV[16]), tonumber(ARGV[17])
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
record[FACTS] = ARGV[18]
packed = cmsgpack.pack(record)
redis.call('HSET', KEYS[5], digest, packed)
redis.call('XADD', KEYS[8], '*', 'type', ARGV[19], 'id', reservation_id, 'record', packed, 'data', ARGV[20])
return { 'moved', now, packed }
