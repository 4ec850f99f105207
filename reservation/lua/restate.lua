--- Tell the book once more what the store has of a reservation: the book has lost it, or never heard.
--
-- Guarantee: the event says what the record says at this moment. Nothing else changes.
--
-- KEYS: reservations terms outbox unsettled
-- ARGV: campaign digest type
--
-- Outcomes, in order of precedence: absent restated
-- Reply: {outcome}

--@include record

local packed = redis.call('HGET', KEYS[1], ARGV[2])
if not packed then
  return { 'absent' }
end
redis.call('INCRBY', KEYS[4], 1)
redis.call('XADD', KEYS[3], '*', 'type', ARGV[3], 'id', ARGV[1] .. '.' .. ARGV[2],
  'record', cmsgpack.pack(read_record(packed, KEYS[2])), 'data', '{}')
return { 'restated' }
