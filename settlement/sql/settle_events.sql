-- Write down what happened. An event that is there already came twice.
INSERT INTO order_events (reservation_id, version, type, data, at)
SELECT one.id, version, type, data, updated_at
FROM jsonb_to_recordset(%(rows)s::jsonb)
        AS found (id text[], version bigint, type text, data jsonb, updated_at timestamptz),
    unnest(found.id) AS one (id)
ORDER BY one.id, version
ON CONFLICT DO NOTHING
