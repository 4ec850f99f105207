-- Main orders from the one after `after` on, of which something was reported since `since`, each with the campaigns
-- that it was used in.
SELECT m.order_id, m.user_id, m.state, m.lines, m.paid_at, m.version,
    (SELECT array_agg(DISTINCT o.campaign) FROM orders o WHERE o.main_order_id = m.order_id)
FROM main_orders m
WHERE m.order_id > %(after)s AND m.updated_at > %(since)s
ORDER BY m.order_id
LIMIT %(limit)s
