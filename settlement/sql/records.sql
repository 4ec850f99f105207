-- A campaign's reservations as the store had them, oldest first, from the one after (at, after) on.
SELECT reservation_id, state, version, user_id, sku, quantity, record, created_at, updated_at
FROM orders
WHERE campaign = %(campaign)s AND (created_at, reservation_id) > (%(at)s, %(after)s)
ORDER BY created_at, reservation_id
LIMIT %(limit)s
