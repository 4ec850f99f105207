-- Reservations made, their units, and payments that succeeded, by minute.
SELECT date_trunc('minute', at, 'UTC') AS minute, sum(reserved), sum(units), sum(paid)
FROM (
    SELECT created_at AS at, 1 AS reserved, quantity AS units, 0 AS paid
    FROM orders
    WHERE campaign = %(campaign)s
    UNION ALL
    SELECT at, 0, 0, 1
    FROM orders JOIN payments USING (reservation_id)
    WHERE campaign = %(campaign)s AND payments.status = 'succeeded'
) AS happened
GROUP BY minute
ORDER BY minute
