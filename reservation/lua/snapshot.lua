--- Go on with a snapshot: what has changed since its reader looked last; and the rest, when nothing has.
--
-- Guarantee: it never holds the store up for long. While somebody reads a campaign page by page, whatever changes
--   a reservation leaves the digest in the trail, and what was read before is read again. Once there is nothing to
--   be read again, the reply has the counters, too: with them, all that was read is the campaign at this instant.
--
-- KEYS: campaign trail reservations used caps tally terms users ranking run
-- ARGV: began position complete changed_max kept_ms
--   began        the entry of the trail that this snapshot began with; empty to begin
--   position     the entry of the trail that was read last
--   complete     1 when the reader has seen every page
--   changed_max  about so many reservations are read again at a time
--   kept_ms      for how long the trail stays when nobody goes on
--
-- Outcomes, in order of precedence: none
-- Reply: {} where there is no campaign; {''} where the trail was lost; else
--   {began, position, adjusted, epoch, changed, users}, and {used, caps, tally, terms, ranking} if that is the end.
--   changed and users are {digest, record, ...} and {user, packed, ...}; the others as HGETALL and
--   ZRANGE WITHSCORES have them.

--@include record

local live = redis.call('HMGET', KEYS[1], 'revision', 'adjusted')
if not live[1] then
  return {}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local began, position, kept_until = ARGV[1], ARGV[2], now + tonumber(ARGV[5])
if began == '' then
  began = redis.call('XADD', KEYS[2], '*', 'began', now)
  position = began
elseif #redis.call('XRANGE', KEYS[2], began, began) == 0 then
  return { '' }
end
redis.call('HSET', KEYS[1], 'trail_until', kept_until)
redis.call('PEXPIREAT', KEYS[2], kept_until)

local changed, users, seen, entries = {}, {}, {}, nil
repeat
  entries = redis.call('XRANGE', KEYS[2], '(' .. position, '+', 'COUNT', 10)
  for _, entry in ipairs(entries) do
    position = entry[1]
    for digest in string.gmatch(entry[2][1] == 'digests' and entry[2][2] or '', '%S+') do
      if not seen[digest] then
        seen[digest] = true
        local packed = redis.call('HGET', KEYS[3], digest)
        local record = cmsgpack.unpack(packed)
        local user = #record > 3 and record[USER] or record[2]
        changed[#changed + 1], changed[#changed + 2] = digest, packed
        if not seen['@' .. user] then
          seen['@' .. user] = true
          users[#users + 1], users[#users + 2] = user, redis.call('HGET', KEYS[8], user)
        end
      end
    end
  end
until #entries == 0 or #changed >= 2 * tonumber(ARGV[4])

local found = { began, position, live[2] or '0', redis.call('HGET', KEYS[10], 'epoch') or '', changed, users }
if #entries == 0 and ARGV[3] == '1' then
  found[7], found[8] = redis.call('HGETALL', KEYS[4]), redis.call('HGETALL', KEYS[5])
  found[9], found[10] = redis.call('HGETALL', KEYS[6]), redis.call('HGETALL', KEYS[7])
  found[11] = redis.call('ZRANGE', KEYS[9], 0, -1, 'WITHSCORES')
end
return found
