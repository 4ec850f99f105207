-- Campaigns that are not over, of those that changed since: whoever settles is to know of them before there is
-- anything to settle. An event may have come late, so a minute before is looked at again; a hold may end after
-- its campaign, so what ended within a day is among them.
SELECT id, document->>'kind', changed_at
FROM campaigns
WHERE changed_at >= %(since)s - interval '1 minute'
    AND status <> 'closed'
    AND greatest((document->>'closes_at')::timestamptz, (document->>'balance_closes_at')::timestamptz)
        > now() - interval '1 day'
ORDER BY changed_at DESC
LIMIT %(limit)s
