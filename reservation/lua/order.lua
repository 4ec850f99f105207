--- Write down what is known of a main order: the one whose payment entitles to trade-ins.
--
-- Guarantee: the order changes on one version of it, together with its event. Orders with work
--   left to do are found again until that is done.
--
-- KEYS: order unfinished outbox unsettled fence
-- ARGV: order version body unfinished event keep_ms above
--   version     the version this change was decided on; 0 makes a new order
--   unfinished  1 while what follows from the change has not been done everywhere, 0 once it
--               has, empty to leave that as it is
--   event       1 if the change is told to the book
--   above       the new version is above this one: the book may have one that the store has lost. Not 0 is a
--               repair, which a fence lets through
--   keep_ms     the order is forgotten this long after its last change
--
-- Outcomes, in order of precedence: store_unavailable conflict recorded
-- Reply: {outcome, now_ms, version, entry_id}; the entry of the outbox is empty where none was written

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local version = redis.call('HGET', KEYS[1], 'version') or '0'
if ARGV[7] == '0' and redis.call('EXISTS', KEYS[5]) == 1 then
  return { 'store_unavailable', now, tonumber(version), '' }
end
if version ~= ARGV[2] then
  return { 'conflict', now, tonumber(version), '' }
end
version = math.max(tonumber(version), tonumber(ARGV[7])) + 1
redis.call('HSET', KEYS[1], 'version', version, 'body', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
if ARGV[4] == '1' then
  redis.call('SADD', KEYS[2], ARGV[1])
elseif ARGV[4] == '0' then
  redis.call('SREM', KEYS[2], ARGV[1])
end
local entry_id = ''
if ARGV[5] == '1' then
  redis.call('INCRBY', KEYS[4], 1)
  entry_id = redis.call('XADD', KEYS[3], '*', 'type', 'main_order_changed', 'id', ARGV[1], 'version', version,
    'body', ARGV[3], 'at', now)
end
return { 'recorded', now, version, entry_id }
