-- The places of a reservation's record, packed with cmsgpack. record.py unpacks the same order.
local STATE, VERSION, USER, SKU, QUANTITY, CLAIMS = 1, 2, 3, 4, 5, 6
local CREATED_AT, UPDATED_AT, DEADLINE, FINGERPRINT, FACTS = 7, 8, 9, 10, 11
