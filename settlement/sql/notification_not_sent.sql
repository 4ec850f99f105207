-- A notification was not taken: it is sent again when its time comes, or never if it is given up.
UPDATE notifications
SET last_error = %(error)s, status = CASE WHEN %(give_up)s THEN 'failed' ELSE status END
WHERE notification_id = %(notification)s AND status = 'pending'
RETURNING notification_id
