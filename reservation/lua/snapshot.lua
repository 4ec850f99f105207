--- Read everything that is kept of a campaign.
--
-- Guarantee: one instant. It holds the store up for as long as it takes.
--
-- KEYS: campaign used caps tally reservations terms users outbox ranking
-- ARGV: none
--
-- Outcomes, in order of precedence: none
-- Reply: {} where there is no campaign, else {used, caps, tally, reservations, terms, users, events,
--   ranking}, as HGETALL, XRANGE and ZRANGE WITHSCORES have them; users are those of the reservations.

--@include record

if redis.call('EXISTS', KEYS[1]) == 0 then
  return {}
end
local reservations = redis.call('HGETALL', KEYS[5])
local seen, users = {}, {}
for i = 2, #reservations, 2 do
  local record = cmsgpack.unpack(reservations[i])
  local user = #record > 3 and record[USER] or record[2]
  if not seen[user] then
    seen[user] = true
    users[#users + 1] = user
    users[#users + 1] = redis.call('HGET', KEYS[7], user)
  end
end
return { redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]),
  reservations, redis.call('HGETALL', KEYS[6]), users, redis.call('XRANGE', KEYS[8], '-', '+'),
  redis.call('ZRANGE', KEYS[9], 0, -1, 'WITHSCORES') }
