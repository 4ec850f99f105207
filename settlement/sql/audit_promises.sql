-- The most that a campaign ever promised: of each gift, and of units to a main order.
SELECT concat('gift/', offer ->> 'sku', '/', gift ->> 'sku'), max((gift ->> 'first')::bigint)
FROM campaign_revisions, jsonb_array_elements(document -> 'offers') AS offer,
    jsonb_array_elements(offer -> 'gifts') AS gift
WHERE campaign = %(campaign)s
GROUP BY 1
UNION ALL
SELECT 'entitlement', max((document -> 'entitlement' ->> 'grants')::bigint)
FROM campaign_revisions
WHERE campaign = %(campaign)s AND document ? 'entitlement'
HAVING count(*) > 0
