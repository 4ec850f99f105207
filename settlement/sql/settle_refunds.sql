-- Bring refunds up to the newest version of their reservation.
INSERT INTO refunds AS r (refund_id, payment_id, reservation_id, amount, currency, status, reason, at,
    version)
SELECT DISTINCT ON (refund) refund, payment, id, amount, currency, status, reason, at, version
FROM jsonb_to_recordset(%(rows)s::jsonb) AS found (refund text, payment text, id text, amount bigint,
    currency text, status text, reason text, at timestamptz, version bigint)
ORDER BY refund, version DESC
ON CONFLICT (refund_id) DO UPDATE
SET status = excluded.status, at = excluded.at, version = excluded.version
WHERE r.version < excluded.version
