--- Bring a reservation to where the book has it: what the store has lost of it comes back.
--
-- Guarantee: everything below happens together or not at all, and never goes back behind what the store
--   has. The claims of the reservation become exactly those of the record: the script takes the difference.
--   No cap that the store keeps is exceeded: what was sold again meanwhile is not sold twice.
--   There is no event: the book has it already.
--
-- KEYS: campaign used caps tally reservations terms users deadlines ranking trail
-- ARGV: campaign digest record
--   record  a whole one, packed, as in include/record.lua
--
-- Outcomes, in order of precedence: absent unchanged over_cap restored
-- Reply: {outcome, counter}; counter is the one whose cap would be exceeded, else empty

--@include record
--@include users
--@include claims

local campaign, digest = ARGV[1], ARGV[2]
local live = redis.call('HMGET', KEYS[1], 'revision', 'trail_until')
if not live[1] then
  return { 'absent', '' }
end
local wanted = cmsgpack.unpack(ARGV[3])
local user, sku = wanted[USER], wanted[SKU]
local packed = redis.call('HGET', KEYS[5], digest)
local record = packed and read_record(packed, KEYS[6])
if record and record[VERSION] >= wanted[VERSION] then
  return { 'unchanged', '' }
end

-- A cap that came with the claim, and is not kept here, held when the claim was taken.
local claims = {}
for i = 1, #wanted[CLAIMS], 2 do
  local name = wanted[CLAIMS][i]
  local counter = string.sub(name, -1) == '@' and name .. user or name
  local cap = tonumber(redis.call('HGET', KEYS[3], counter) or 2 ^ 53 - 1)
  claims[#claims + 1] = { name, wanted[CLAIMS][i + 1], cap, name }
end
local own = open_own(redis.call('HGET', KEYS[7], user), campaign)
local held = record and record[CLAIMS] or {}
local refusal, steps = weigh_claims(held, claims, user, own, nil, KEYS[2], KEYS[3], KEYS[9])
if refusal then
  return { 'over_cap', refusal }
end

if not record and not string.find(own.ids, digest, 1, true) then
  remember(own, digest)
end
local used_key, users_key, ranking_key = KEYS[2], KEYS[7], KEYS[9]
--@include take
if record then
  redis.call('HINCRBY', KEYS[4], record[STATE] .. '/' .. sku, -record[QUANTITY])
end
redis.call('HINCRBY', KEYS[4], wanted[STATE] .. '/' .. sku, wanted[QUANTITY])
local reservation_id = campaign .. '.' .. digest
if wanted[DEADLINE] > 0 then
  redis.call('ZADD', KEYS[8], wanted[DEADLINE], reservation_id)
else
  redis.call('ZREM', KEYS[8], reservation_id)
end
redis.call('HSET', KEYS[5], digest, ARGV[3])
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) < tonumber(live[2] or 0) then
  redis.call('XADD', KEYS[10], '*', 'digests', digest)
end
redis.call('PUBLISH', 'doorbuster:moved:' .. reservation_id, wanted[VERSION])
return { 'restored', '' }
