-- Write down what happened. An event that is there already came twice.
INSERT INTO order_events (reservation_id, version, type, data, at)
SELECT * FROM unnest(%(id)s::text[], %(version)s::bigint[], %(type)s::text[], %(data)s::jsonb[],
                     %(at)s::timestamptz[])
ON CONFLICT DO NOTHING
