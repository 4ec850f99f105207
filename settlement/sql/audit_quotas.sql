-- The most generous quotas that a campaign ever had: of the campaign, and of each SKU.
-- A revision without a quota allows any number, which NULL stands for.
SELECT NULL AS sku,
    CASE WHEN bool_and(document ? 'per_user') THEN max((document ->> 'per_user')::bigint) END
FROM campaign_revisions
WHERE campaign = %(campaign)s
UNION ALL
SELECT offer ->> 'sku',
    CASE WHEN bool_and(offer ? 'per_user') THEN max((offer ->> 'per_user')::bigint) END
FROM campaign_revisions, jsonb_array_elements(document -> 'offers') AS offer
WHERE campaign = %(campaign)s
GROUP BY 1
