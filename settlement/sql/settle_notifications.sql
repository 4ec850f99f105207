-- Write down what the merchant is to be told. What is there already came twice, and may have been sent.
INSERT INTO notifications (notification_id, reservation_id, campaign, user_id, type, body)
SELECT * FROM unnest(%(notification)s::text[], %(id)s::text[], %(campaign)s::text[], %(user)s::text[],
    %(type)s::text[], %(body)s::jsonb[])
ON CONFLICT DO NOTHING
