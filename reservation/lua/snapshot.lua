--- Go on with a snapshot: what has changed since its reader looked last; and the rest, when nothing has.
--
-- Guarantee: it never holds the store up for long. While somebody reads a campaign page by page, whatever changes
--   a reservation leaves the digest in the trail, and what was read before is read again. Once there is nothing to
--   be read again, the reply has the counters, too: with them, all that was read is the campaign at this instant.
--   The trail is no longer than what readers need who look at least every kept_ms.
--
-- KEYS: campaign trail reservations used caps tally users ranking
-- ARGV: position complete changed_max kept_ms
--   position     the entry of the trail that was read last; empty to begin
--   complete     1 when the reader has seen every page
--   changed_max  about so many reservations are read again at a time
--   kept_ms      for how long the trail stays when nobody goes on
--
-- Outcomes, in order of precedence: none
-- Reply: {} where there is no campaign; {''} where the trail was lost; else
--   {position, adjusted, run_id, changed, users}, and {used, caps, tally, ranking} if that is the end.
--   changed and users are {digest, record, ...} and {user, packed, ...}; the others as HGETALL and
--   ZRANGE WITHSCORES have them.

--@include record

local live = redis.call('HMGET', KEYS[1], 'revision', 'adjusted')
if not live[1] then
  return {}
end
local position, kept_ms = ARGV[1], tonumber(ARGV[4])
if position ~= '' and #redis.call('XRANGE', KEYS[2], position, position) == 0 then
  return { '' }
end

local changed, users, seen, entries = {}, {}, {}, {}
while position ~= '' do
  entries = redis.call('XRANGE', KEYS[2], '(' .. position, '+', 'COUNT', 10)
  if #entries == 0 or #changed >= 2 * tonumber(ARGV[3]) then
    break
  end
  for _, entry in ipairs(entries) do
    position = entry[1]
    for digest in string.gmatch(entry[2][1] == 'digests' and entry[2][2] or '', '%S+') do
      local packed = not seen[digest] and redis.call('HGET', KEYS[3], digest)
      if packed then
        seen[digest] = true
        local record = cmsgpack.unpack(packed)
        local user = #record > 3 and record[USER] or record[2]
        changed[#changed + 1], changed[#changed + 2] = digest, packed
        if not seen['@' .. user] then
          seen['@' .. user] = true
          users[#users + 1], users[#users + 2] = user, redis.call('HGET', KEYS[7], user)
        end
      end
    end
  end
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if #entries == 0 then
  -- A mark to go on from. What is older than any that is still in use is not read any more.
  position = redis.call('XADD', KEYS[2], '*', 'looked', now)
  redis.call('XTRIM', KEYS[2], 'MINID', now - kept_ms)
end
redis.call('HSET', KEYS[1], 'trail_until', now + kept_ms)
-- A key lives for the whole millisecond of its end: in that one, nobody leaves anything any more.
redis.call('PEXPIREAT', KEYS[2], now + kept_ms - 1)

local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local found = { position, live[2] or '0', run_id, changed, users }
if #entries == 0 and ARGV[2] == '1' then
  found[6], found[7] = redis.call('HGETALL', KEYS[4]), redis.call('HGETALL', KEYS[5])
  found[8], found[9] = redis.call('HGETALL', KEYS[6]), redis.call('ZRANGE', KEYS[8], 0, -1, 'WITHSCORES')
end
return found
