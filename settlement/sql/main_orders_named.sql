-- These main orders, without the campaigns that they were used in.
SELECT m.order_id, m.user_id, m.state, m.lines, m.paid_at, m.version, NULL::text[]
FROM main_orders m
WHERE m.order_id = ANY(%(ids)s)
