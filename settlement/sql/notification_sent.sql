-- A notification was taken. Whoever else had it in hand and failed is wrong.
UPDATE notifications SET status = 'sent', sent_at = clock_timestamp()
WHERE notification_id = %(notification)s AND status <> 'sent'
RETURNING notification_id
