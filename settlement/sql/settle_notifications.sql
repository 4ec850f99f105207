-- Write down what the merchant is to be told. What is there already came twice, and may have been sent.
INSERT INTO notifications (notification_id, reservation_id, campaign, user_id, type, body)
SELECT notification, id, campaign, "user", type, body
FROM jsonb_to_recordset(%(rows)s::jsonb)
    AS found (notification text, id text, campaign text, "user" text, type text, body jsonb)
ORDER BY notification
ON CONFLICT DO NOTHING
