-- What the book says of a campaign's reservations, with the money that belongs to each.
SELECT o.reservation_id, o.state, o.version, o.quantity, o.sku, o.user_id, o.total, o.paid, o.refunded,
    (SELECT count(*) FROM order_events e WHERE e.reservation_id = o.reservation_id),
    (SELECT coalesce(sum(p.amount) FILTER (WHERE p.status = 'succeeded'), 0) FROM payments p
     WHERE p.reservation_id = o.reservation_id),
    (SELECT coalesce(sum(r.amount), 0) FROM refunds r WHERE r.reservation_id = o.reservation_id)
FROM orders o
WHERE o.campaign = %(campaign)s
