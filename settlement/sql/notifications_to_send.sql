-- Take notifications whose time has come, and set when each is sent again if nobody says that it was:
-- twice as far off each time, within limits, give or take a quarter so that they come apart.
-- now() and not clock_timestamp(), which no index is searched by.
WITH due AS MATERIALIZED (
    SELECT notification_id FROM notifications
    WHERE status = 'pending' AND next_attempt_at <= now()
    ORDER BY next_attempt_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE notifications AS n
SET attempts = n.attempts + 1,
    next_attempt_at = clock_timestamp() + interval '1 second' * (0.75 + random() / 2)
        * least(%(seconds_min)s * power(2, least(n.attempts, 30)), %(seconds_max)s)
FROM due
WHERE n.notification_id = due.notification_id
RETURNING n.notification_id, n.type, n.body, n.attempts
