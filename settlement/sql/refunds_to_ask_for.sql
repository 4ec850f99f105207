-- Take refunds whose time has come, and set when each is asked for again: the provider is asked
-- until it has said that the money went back. Asking twice is harmless, by refund id.
UPDATE refunds
SET attempts = attempts + 1,
    next_attempt_at = clock_timestamp() + least(power(2, attempts), 300) * interval '1 second'
WHERE refund_id IN (
    SELECT refund_id FROM refunds
    WHERE status = 'pending' AND next_attempt_at <= now()
    ORDER BY next_attempt_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED)
RETURNING refund_id, payment_id, amount, currency, reason,
    (SELECT provider_ref FROM payments WHERE payments.payment_id = refunds.payment_id)
