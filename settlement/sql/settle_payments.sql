-- Bring payments up to the newest version of their reservation.
INSERT INTO payments AS p (payment_id, reservation_id, stage, amount, currency, status, provider_ref,
    at, version)
SELECT * FROM unnest(%(payment)s::text[], %(id)s::text[], %(stage)s::text[], %(amount)s::bigint[],
    %(currency)s::text[], %(status)s::text[], %(provider_ref)s::text[], %(at)s::timestamptz[],
    %(version)s::bigint[])
ON CONFLICT (payment_id) DO UPDATE
SET amount = excluded.amount, status = excluded.status, provider_ref = excluded.provider_ref,
    at = excluded.at, version = excluded.version
WHERE p.version < excluded.version
