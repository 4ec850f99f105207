-- The places of a reservation's record, packed with cmsgpack. record.py unpacks the same order.
local STATE, VERSION, USER, SKU, QUANTITY, CLAIMS = 1, 2, 3, 4, 5, 6
local CREATED_AT, UPDATED_AT, DEADLINE, FINGERPRINT, FACTS = 7, 8, 9, 10, 11

-- While nothing has happened to a reservation since it was made, its record is only
-- {name of its terms, user, created_at}, and the terms are kept once for all that were made on them:
-- {sku, quantity, state, claims, hold_ms, fingerprint, facts}.
local function read_record(packed, terms_key)
  local record = cmsgpack.unpack(packed)
  if #record > 3 then
    return record
  end
  local terms = cmsgpack.unpack(redis.call('HGET', terms_key, record[1]))
  local created_at, deadline = record[3], terms[5] > 0 and record[3] + terms[5] or 0
  return { terms[3], 1, record[2], terms[1], terms[2], terms[4], created_at, created_at, deadline, terms[6],
    terms[7] }
end
