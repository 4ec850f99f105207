-- The versions in which the book has these reservations, of those whose history is whole: as many events as
-- versions. A store that was lost may have taken some with it.
SELECT reservation_id, version FROM orders AS o
WHERE reservation_id = ANY(%(ids)s)
    AND version <= (SELECT count(*) FROM order_events AS e WHERE e.reservation_id = o.reservation_id)
