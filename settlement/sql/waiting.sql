-- What waits: refunds for the provider, notifications for the merchant's systems, and for how long the oldest
-- notification has. Not counted to the end where there are very many: this is asked all the time.
SELECT
    (SELECT count(*) FROM (SELECT FROM refunds WHERE status = 'pending' LIMIT %(limit)s) AS pending),
    count(*),
    coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8
FROM (SELECT created_at FROM notifications WHERE status = 'pending' LIMIT %(limit)s) AS pending
