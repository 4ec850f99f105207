-- These main orders, each with the campaigns that it was used in.
SELECT m.order_id, m.user_id, m.state, m.lines, m.paid_at, m.version,
    (SELECT array_agg(DISTINCT o.campaign) FROM orders o WHERE o.main_order_id = m.order_id)
FROM main_orders m
WHERE m.order_id = ANY(%(ids)s)
