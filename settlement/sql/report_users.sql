-- How many different users reserved, paid something, and have an order; from when to when reservations were made, and
-- when one last changed.
WITH paid AS (
    SELECT DISTINCT reservation_id
    FROM orders JOIN payments USING (reservation_id)
    WHERE campaign = %(campaign)s AND status = 'succeeded'
)
SELECT count(DISTINCT user_id),
    count(DISTINCT user_id) FILTER (WHERE paid.reservation_id IS NOT NULL),
    count(DISTINCT user_id) FILTER (WHERE state = 'confirmed'),
    min(created_at),
    max(created_at),
    max(updated_at)
FROM orders LEFT JOIN paid USING (reservation_id)
WHERE campaign = %(campaign)s
