-- Bring orders up to the newest version seen. Events may come late, twice or out of order, so an
-- older one only fills in what just the first event carries: the tier.
INSERT INTO orders AS o (reservation_id, campaign, kind, sku, user_id, quantity, state, version,
    currency, total, paid, refunded, main_order_id, tier, lines, price, created_at, updated_at)
SELECT * FROM unnest(%(id)s::text[], %(campaign)s::text[], %(kind)s::text[], %(sku)s::text[],
    %(user)s::text[], %(quantity)s::bigint[], %(state)s::text[], %(version)s::bigint[],
    %(currency)s::text[], %(total)s::bigint[], %(paid)s::bigint[], %(refunded)s::bigint[],
    %(main_order)s::text[], %(tier)s::text[], %(lines)s::jsonb[], %(price)s::jsonb[],
    %(created_at)s::timestamptz[], %(updated_at)s::timestamptz[])
ON CONFLICT (reservation_id) DO UPDATE
SET tier = coalesce(o.tier, excluded.tier),
    lines = CASE WHEN o.version < excluded.version THEN excluded.lines ELSE o.lines END,
    quantity = CASE WHEN o.version < excluded.version THEN excluded.quantity ELSE o.quantity END,
    state = CASE WHEN o.version < excluded.version THEN excluded.state ELSE o.state END,
    total = CASE WHEN o.version < excluded.version THEN excluded.total ELSE o.total END,
    paid = CASE WHEN o.version < excluded.version THEN excluded.paid ELSE o.paid END,
    refunded = CASE WHEN o.version < excluded.version THEN excluded.refunded ELSE o.refunded END,
    price = CASE WHEN o.version < excluded.version THEN excluded.price ELSE o.price END,
    updated_at = CASE WHEN o.version < excluded.version THEN excluded.updated_at ELSE o.updated_at END,
    version = greatest(o.version, excluded.version),
    settled_at = clock_timestamp()
WHERE o.version < excluded.version OR (o.tier IS NULL AND excluded.tier IS NOT NULL)
