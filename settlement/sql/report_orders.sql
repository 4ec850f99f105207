-- What became of a campaign's reservations, by offer and tier. Money in minor units.
WITH own AS MATERIALIZED (
    SELECT reservation_id, sku, tier, quantity, state, paid, refunded, main_order_id,
        CASE WHEN (price ->> 'deposit')::bigint > 0
            THEN (price ->> 'deposit')::bigint + (price ->> 'balance')::bigint
            ELSE total - coalesce((SELECT sum((one ->> 'amount')::bigint)
                FROM jsonb_array_elements(price -> 'discounts') AS one), 0)
        END AS payable
    FROM orders
    WHERE campaign = %(campaign)s
), happened AS (
    SELECT reservation_id, bool_or(type = 'expired') AS expired, bool_or(type = 'offered') AS offered,
        bool_or(type = 'taken_back') AS taken_back
    FROM own JOIN order_events USING (reservation_id)
    WHERE type IN ('expired', 'offered', 'taken_back')
    GROUP BY reservation_id
), received AS (
    SELECT reservation_id, coalesce(sum(amount) FILTER (WHERE stage = 'deposit'), 0) AS deposits,
        bool_or(stage = 'deposit') AS has_deposit
    FROM own JOIN payments USING (reservation_id)
    WHERE payments.status = 'succeeded'
    GROUP BY reservation_id
)
SELECT sku, tier,
    count(*) AS reservations,
    sum(quantity) AS units,
    count(*) FILTER (WHERE has_deposit IS NOT NULL) AS paid,
    count(*) FILTER (WHERE state = 'confirmed') AS orders,
    coalesce(sum(quantity) FILTER (WHERE state = 'confirmed'), 0) AS units_sold,
    coalesce(sum(payable) FILTER (WHERE state = 'confirmed'), 0) AS gmv,
    sum(own.paid - refunded) AS kept,
    count(*) FILTER (WHERE expired) AS expired,
    count(*) FILTER (WHERE offered) AS offered,
    count(*) FILTER (WHERE offered AND has_deposit IS NOT NULL) AS offered_paid,
    count(*) FILTER (WHERE has_deposit) AS deposits,
    coalesce(sum(received.deposits), 0) AS deposits_amount,
    count(*) FILTER (WHERE has_deposit AND state = 'confirmed') AS completed,
    count(*) FILTER (WHERE state = 'forfeited') AS forfeits,
    coalesce(sum(own.paid - refunded) FILTER (WHERE state = 'forfeited'), 0) AS forfeits_amount,
    coalesce(sum(quantity) FILTER (WHERE state IN ('held', 'confirmed')), 0) AS units_used,
    count(*) FILTER (WHERE taken_back) AS taken_back,
    coalesce(sum(quantity) FILTER (WHERE taken_back), 0) AS units_taken_back
FROM own LEFT JOIN happened USING (reservation_id) LEFT JOIN received USING (reservation_id)
GROUP BY sku, tier
ORDER BY sku, tier
