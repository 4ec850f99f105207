-- Bring orders up to the newest version seen. Events may come late, twice or out of order, so an
-- older one only fills in what just the first event carries: the tier.
-- In the order of their ids, so that two workers never wait for each other's rows in a circle.
INSERT INTO orders AS o (reservation_id, campaign, kind, sku, user_id, quantity, state, version,
    currency, total, paid, refunded, main_order_id, tier, lines, price, record, created_at, updated_at)
SELECT DISTINCT ON (one.id) one.id, campaign, kind, sku, one.user_id, quantity, state, version,
    currency, total, paid, refunded, main_order, max(tier) OVER (PARTITION BY one.id), lines, price,
    record, created_at, updated_at
FROM jsonb_to_recordset(%(rows)s::jsonb) AS found (id text[], "user" text[], campaign text, kind text,
        sku text, quantity bigint, state text, version bigint, currency text, total bigint, paid bigint,
        refunded bigint, main_order text, tier text, lines jsonb, price jsonb, record jsonb,
        created_at timestamptz, updated_at timestamptz),
    unnest(found.id, found."user") AS one (id, user_id)
ORDER BY one.id, version DESC
ON CONFLICT (reservation_id) DO UPDATE
SET tier = coalesce(o.tier, excluded.tier),
    lines = CASE WHEN o.version < excluded.version THEN excluded.lines ELSE o.lines END,
    quantity = CASE WHEN o.version < excluded.version THEN excluded.quantity ELSE o.quantity END,
    state = CASE WHEN o.version < excluded.version THEN excluded.state ELSE o.state END,
    total = CASE WHEN o.version < excluded.version THEN excluded.total ELSE o.total END,
    paid = CASE WHEN o.version < excluded.version THEN excluded.paid ELSE o.paid END,
    refunded = CASE WHEN o.version < excluded.version THEN excluded.refunded ELSE o.refunded END,
    price = CASE WHEN o.version < excluded.version THEN excluded.price ELSE o.price END,
    record = CASE WHEN o.version < excluded.version THEN excluded.record ELSE o.record END,
    updated_at = CASE WHEN o.version < excluded.version THEN excluded.updated_at ELSE o.updated_at END,
    version = greatest(o.version, excluded.version),
    settled_at = clock_timestamp()
WHERE o.version < excluded.version OR (o.tier IS NULL AND excluded.tier IS NOT NULL)
