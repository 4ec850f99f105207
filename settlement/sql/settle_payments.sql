-- Bring payments up to the newest version of their reservation.
INSERT INTO payments AS p (payment_id, reservation_id, stage, amount, currency, status, provider_ref,
    at, version)
SELECT DISTINCT ON (payment) payment, id, stage, amount, currency, status, provider_ref, at, version
FROM jsonb_to_recordset(%(rows)s::jsonb) AS found (payment text, id text, stage text, amount bigint,
    currency text, status text, provider_ref text, at timestamptz, version bigint)
ORDER BY payment, version DESC
ON CONFLICT (payment_id) DO UPDATE
SET amount = excluded.amount, status = excluded.status, provider_ref = excluded.provider_ref,
    at = excluded.at, version = excluded.version
WHERE p.version < excluded.version
