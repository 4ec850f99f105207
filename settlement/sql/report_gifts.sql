-- Gifts that reservations come with, by offer and gift: not of those that have ended.
SELECT orders.sku, line ->> 'sku', sum((line ->> 'quantity')::bigint)
FROM orders, jsonb_array_elements(lines) AS line
WHERE campaign = %(campaign)s AND state IN ('deposit_paid', 'confirmed') AND (line ->> 'gift')::boolean
GROUP BY 1, 2
ORDER BY 1, 2
