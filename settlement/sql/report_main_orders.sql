-- How many main orders meet a trade-in's condition, as they stand and if they were paid before it closed.
SELECT count(*)
FROM main_orders
WHERE state = 'paid' AND paid_at < %(closes_at)s
    AND (SELECT sum((line ->> 'amount')::bigint)
         FROM jsonb_array_elements(lines) AS line
         WHERE (%(skus)s::text[] IS NULL AND %(categories)s::text[] IS NULL)
            OR line ->> 'sku' = ANY(%(skus)s) OR line ->> 'category' = ANY(%(categories)s)
        ) >= greatest(%(min_spend)s, 1)
