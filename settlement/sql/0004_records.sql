-- What the store keeps of a reservation and no other column says, so that it can be rebuilt from the book.

ALTER TABLE orders ADD COLUMN record jsonb;
COMMENT ON COLUMN orders.record IS
    '{claims: [[counter, n]], deadline (ms, 0 is none), fingerprint, facts}; NULL for what was settled before';
