--- Make new reservations: all that are asked for on the same terms at the same moment.
--
-- Guarantee: everything below happens together or not at all, and as if one had come after the
--   other, in their order. Nothing is written before everything is decided. A refusal writes nothing.
--   The events are in the outbox if and only if the reservations were made.
--   What is left of an offer and would do for somebody in line is for the line only.
--
-- KEYS: campaign used caps tally reservations terms users holds hold_times deadlines outbox unsettled
--   queue places queues fence trail
-- ARGV: campaign revision opens_at opens_refusal closes_at closes_refusal first_refusal last_refusal
--       type data queued serves terms_name terms claims_end claims... who...
--   revision       of the campaign that the terms were made from; 0 when none matters
--   opens_at       ms; before it the answer is opens_refusal; 0 is no bound
--   closes_at      ms; from it on the answer is closes_refusal; 0 is no bound
--   first_refusal  known by the caller and answered before the windows, or empty
--   last_refusal   known by the caller and answered after the windows, or empty
--   queued         the counter that the queue of this sku is for
--   serves         1 if this serves the user's place in the queue, whose turn it must be
--   terms_name     the name that the campaign keeps these terms under
--   terms          packed: {sku, quantity, state, claims, hold_ms, fingerprint, facts}
--   claims_end     the last argument that belongs to the claims
--   claims         four each: counter n cap refusal, as in include/claims.lua
--   who            two each: digest user
--
-- Outcomes, in order of precedence: replayed idempotency_mismatch store_unavailable stale
--   first_refusal ended closes_refusal opens_refusal paused last_refusal conflict (not their turn)
--   refusal-of-the-first-claim-that-does-not-hold moved
-- Reply: {now_ms, entry_id, outcome, outcome, ...} in the order of who. Where the caller cannot know the
--   record, instead of the outcome alone: {outcome, record}. entry_id is the last that this run has written
--   to the outbox, or empty.

--@include record
--@include campaign
--@include users
--@include claims

local campaign, terms_name = ARGV[1], ARGV[13]
local terms = cmsgpack.unpack(ARGV[14])
local sku, quantity, state, hold_ms, fingerprint = terms[1], terms[2], terms[3], terms[5], terms[6]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local digests, users = {}, {}
for i = tonumber(ARGV[15]) + 1, #ARGV, 2 do
  digests[#digests + 1], users[#users + 1] = ARGV[i], ARGV[i + 1]
end

-- 1. The reservations that are there already, and the campaign: as the caller knows it, and open.
local found = redis.call('HMGET', KEYS[5], unpack(digests))
local refusal, waiting, trailed = refused_by_campaign(KEYS[1], KEYS[16], now, 2, true)
local wanted, queued, leave_later, packed_own, known_terms
if not refusal then
  known_terms = redis.call('HGET', KEYS[6], terms_name)
  if known_terms and known_terms ~= ARGV[14] then
    return redis.error_reply('ERR other terms have this name')
  end
  wanted = read_claims(16, tonumber(ARGV[15]))
  packed_own = redis.call('HMGET', KEYS[7], unpack(users))
  if waiting > 0 or ARGV[12] == '1' then
    -- Here, since every run makes its functions anew, and most runs need none of these.
    --@include queue
    local available = cap_of(ARGV[11], '', KEYS[3]) - used_of(ARGV[11], '', nil, KEYS[2])
    if ARGV[12] ~= '1' then
      queued = suffices_for_some(KEYS[13], KEYS[14], sku, available) and ARGV[11] or nil
    elseif has_turn(KEYS[13], KEYS[14], sku, users[1], available) then
      leave_later = function()
        leave_queue(KEYS[1], KEYS[4], KEYS[13], KEYS[14], KEYS[15], campaign, sku, users[1])
      end
    else
      refusal = 'conflict'
    end
  end
end

-- 2. The one rule for each: used + n <= cap, for every claim.
local answers, made, owns, records, who, alone = { now, '' }, {}, {}, {}, {}, {}
for i, digest in ipairs(digests) do
  local user, packed, answer = users[i], found[i] or made[digest], refusal
  if packed then
    local same = made[digest] or read_record(packed, KEYS[6])[FINGERPRINT] == fingerprint
    answer = { same and 'replayed' or 'idempotency_mismatch', packed }
  elseif not refusal then
    local own = owns[user] or open_own(packed_own[i], campaign)
    local steps, taken
    answer, steps, taken = weigh_claims({}, wanted, user, own, queued, KEYS[2], KEYS[3])
    if not answer then
      take_steps(steps, user, own, KEYS[2])
      remember(own, digest)
      owns[user] = own
      if #taken == 2 * #wanted then
        answer = 'moved'
        packed = cmsgpack.pack({ terms_name, user, now })
        who[#who + 1], who[#who + 2] = digest, user
      else -- Not all that the terms offer.
        packed = cmsgpack.pack({ state, 1, user, sku, quantity, taken, now, now,
          hold_ms > 0 and now + hold_ms or 0, fingerprint, terms[7] })
        answer = { 'moved', packed }
        alone[#alone + 1] = digest
      end
      made[digest] = packed
      records[#records + 1], records[#records + 2] = digest, packed
    end
  end
  answers[#answers + 1] = answer
end
if #records == 0 then
  return answers
end

-- 3. Nothing can refuse any more: write.
local packed_owns = {}
for user, own in pairs(owns) do
  packed_owns[#packed_owns + 1], packed_owns[#packed_owns + 2] = user, pack_own(own, campaign)
end
redis.call('HSET', KEYS[5], unpack(records))
if trailed then
  local made_now = {}
  for i = 1, #records, 2 do
    made_now[#made_now + 1] = records[i]
  end
  redis.call('XADD', KEYS[17], '*', 'digests', table.concat(made_now, ' '))
end
redis.call('HSET', KEYS[7], unpack(packed_owns))
redis.call('HINCRBY', KEYS[4], state .. '/' .. sku, quantity * #records / 2)
redis.call('INCRBY', KEYS[12], #records / 2)
write_shared(KEYS[2])
if leave_later then
  leave_later()
end
if #who > 0 then
  if not known_terms then
    redis.call('HSET', KEYS[6], terms_name, ARGV[14])
  end
  answers[2] = redis.call('XADD', KEYS[11], '*', 'type', ARGV[9], 'campaign', campaign, 'at', now, 'terms', ARGV[14],
    'who', cmsgpack.pack(who), 'data', ARGV[10])
  if hold_ms > 0 then
    -- Who is held equally long is due in the same order. Nobody looks for them before.
    local held = {}
    for i = 1, #who, 2 do
      held[#held + 1] = who[i]
    end
    redis.call('SADD', KEYS[9], hold_ms)
    redis.call('XADD', KEYS[8], '*', campaign, table.concat(held, ' '))
  end
end
for _, digest in ipairs(alone) do
  local reservation_id = campaign .. '.' .. digest
  if hold_ms > 0 then
    redis.call('ZADD', KEYS[10], now + hold_ms, reservation_id)
  end
  answers[2] = redis.call('XADD', KEYS[11], '*', 'type', ARGV[9], 'id', reservation_id,
    'record', made[digest], 'data', ARGV[10])
end
return answers
