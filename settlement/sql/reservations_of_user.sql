-- A user's reservations, newest first.
SELECT reservation_id FROM orders
WHERE user_id = %(user)s
ORDER BY created_at DESC, reservation_id DESC
LIMIT %(limit)s
