-- How stock, what is taken of it and what is sold changed: of all offers in each minute (sku is NULL), and of those of
-- which most was taken in each step (minute is NULL; a step is told by its end). And for each offer the first instant
-- at which all there was was taken, if there was one (both are NULL). Steps are short until reserving ends, and may be
-- long for what comes after it: a refund a month later makes no day of a sale of ten minutes.
WITH own AS MATERIALIZED (
    SELECT reservation_id, sku,
        CASE WHEN (price ->> 'deposit')::bigint > 0
            THEN (price ->> 'deposit')::bigint + (price ->> 'balance')::bigint
            ELSE total - coalesce((SELECT sum((one ->> 'amount')::bigint)
                FROM jsonb_array_elements(price -> 'discounts') AS one), 0)
        END AS payable
    FROM orders
    WHERE campaign = %(campaign)s
), stood AS (
    SELECT sku, at, reservation_id, version,
        CASE WHEN data ->> 'state' IN ('held', 'deposit_paid', 'confirmed')
            THEN (data ->> 'quantity')::bigint ELSE 0 END AS taken,
        CASE WHEN data ->> 'state' = 'confirmed' THEN (data ->> 'quantity')::bigint ELSE 0 END AS sold,
        CASE WHEN data ->> 'state' = 'confirmed' THEN 1 ELSE 0 END AS orders,
        CASE WHEN data ->> 'state' = 'confirmed' THEN payable ELSE 0 END AS gmv
    FROM own JOIN order_events USING (reservation_id)
), moved AS (
    SELECT sku, at, 0 AS stock,
        taken - lag(taken, 1, 0::bigint) OVER one AS taken, sold - lag(sold, 1, 0::bigint) OVER one AS sold,
        orders - lag(orders, 1, 0) OVER one AS orders, gmv - lag(gmv, 1, 0::bigint) OVER one AS gmv
    FROM stood
    WINDOW one AS (PARTITION BY reservation_id ORDER BY version)
    UNION ALL
    -- A revision's stock counts until the next: of an offer that it took off, there is none then.
    SELECT offer ->> 'sku', counted.at, counted.times * (offer ->> 'stock')::bigint, 0, 0, 0, 0
    FROM (
        SELECT document, changed_at, lead(changed_at) OVER (ORDER BY revision) AS next_at
        FROM campaign_revisions
        WHERE campaign = %(campaign)s
    ) AS revised,
        jsonb_array_elements(document -> 'offers') AS offer,
        LATERAL (VALUES (changed_at, 1), (next_at, -1)) AS counted (at, times)
    WHERE counted.at IS NOT NULL
), changed AS (
    SELECT sku, at, sum(stock) AS stock, sum(taken) AS taken, sum(sold) AS sold, sum(orders) AS orders,
        sum(gmv) AS gmv
    FROM moved
    GROUP BY sku, at
    HAVING sum(stock) <> 0 OR sum(taken) <> 0 OR sum(sold) <> 0 OR sum(orders) <> 0 OR sum(gmv) <> 0
), stands AS (
    SELECT *, sum(stock) OVER so_far AS stock_now, sum(taken) OVER so_far AS taken_now
    FROM changed
    WINDOW so_far AS (PARTITION BY sku ORDER BY at)
)
-- Three sorts of rows, and as few as are told: a week's minutes of each of a thousand offers are millions.
SELECT NULL AS sku, date_trunc('minute', at, 'UTC') AS minute, NULL::timestamptz AS step,
    sum(stock), sum(taken), sum(sold), sum(orders), sum(gmv), NULL::timestamptz AS full_at
FROM stands
GROUP BY 2
UNION ALL
SELECT sku, NULL, CASE
        WHEN at < %(until)s THEN least(date_bin(%(step)s, at, %(from)s) + %(step)s, %(until)s)
        ELSE date_bin(%(late_step)s, at, %(until)s) + %(late_step)s
    END,
    sum(stock), sum(taken), sum(sold), sum(orders), sum(gmv), NULL
FROM stands JOIN (
    SELECT sku FROM stands GROUP BY sku ORDER BY sum(taken) DESC, sku LIMIT %(offers)s
) AS told USING (sku)
GROUP BY 1, 3
UNION ALL
SELECT sku, NULL, NULL, 0, 0, 0, 0, 0, min(at) FILTER (WHERE stock_now > 0 AND taken_now >= stock_now)
FROM stands
GROUP BY sku
ORDER BY 1, 2, 3
