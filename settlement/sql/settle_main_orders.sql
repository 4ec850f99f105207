-- Bring main orders up to the newest version seen.
INSERT INTO main_orders AS m (order_id, user_id, state, lines, paid_at, version, updated_at)
SELECT DISTINCT ON (id) id, "user", state, lines, paid_at, version, at
FROM jsonb_to_recordset(%(rows)s::jsonb) AS found (id text, "user" text, state text, lines jsonb,
    paid_at timestamptz, version bigint, at timestamptz)
ORDER BY id, version DESC
ON CONFLICT (order_id) DO UPDATE
SET user_id = excluded.user_id, state = excluded.state, lines = excluded.lines,
    paid_at = excluded.paid_at, version = excluded.version, updated_at = excluded.updated_at
WHERE m.version < excluded.version
