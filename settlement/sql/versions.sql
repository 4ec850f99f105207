-- The versions in which the book has these reservations.
SELECT reservation_id, version FROM orders WHERE reservation_id = ANY(%(ids)s)
