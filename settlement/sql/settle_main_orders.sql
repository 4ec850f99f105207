-- Bring main orders up to the newest version seen.
INSERT INTO main_orders AS m (order_id, user_id, state, lines, paid_at, version, updated_at)
SELECT DISTINCT ON (1) * FROM unnest(%(id)s::text[], %(user)s::text[], %(state)s::text[], %(lines)s::jsonb[],
    %(paid_at)s::timestamptz[], %(version)s::bigint[], %(at)s::timestamptz[])
    AS found (id, user_id, state, lines, paid_at, version, at)
ORDER BY id, version DESC
ON CONFLICT (order_id) DO UPDATE
SET user_id = excluded.user_id, state = excluded.state, lines = excluded.lines,
    paid_at = excluded.paid_at, version = excluded.version, updated_at = excluded.updated_at
WHERE m.version < excluded.version
