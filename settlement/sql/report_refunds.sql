-- Refunds by offer, tier, reason and whether they were made; amounts in minor units.
SELECT sku, tier, reason, refunds.status, count(*), sum(amount)
FROM orders JOIN refunds USING (reservation_id)
WHERE campaign = %(campaign)s
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
