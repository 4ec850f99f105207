-- Bring refunds up to the newest version of their reservation.
INSERT INTO refunds AS r (refund_id, payment_id, reservation_id, amount, currency, status, reason, at,
    version)
SELECT * FROM unnest(%(refund)s::text[], %(payment)s::text[], %(id)s::text[], %(amount)s::bigint[],
    %(currency)s::text[], %(status)s::text[], %(reason)s::text[], %(at)s::timestamptz[],
    %(version)s::bigint[])
ON CONFLICT (refund_id) DO UPDATE
SET status = excluded.status, at = excluded.at, version = excluded.version
WHERE r.version < excluded.version
