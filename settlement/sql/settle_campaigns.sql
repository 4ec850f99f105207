-- Take in campaigns as they were changed. A late event never overwrites a newer revision.
WITH changed AS (
    SELECT * FROM unnest(%(id)s::text[], %(revision)s::bigint[], %(status)s::text[],
                         %(document)s::jsonb[], %(at)s::timestamptz[])
        AS t (id, revision, status, document, changed_at)
), kept AS (
    INSERT INTO campaign_revisions (campaign, revision, status, document, changed_at)
    SELECT id, revision, status, document, changed_at FROM changed
    ON CONFLICT DO NOTHING
)
INSERT INTO campaigns (id, revision, status, document, changed_at)
SELECT DISTINCT ON (id) id, revision, status, document, changed_at
FROM changed
ORDER BY id, revision DESC
ON CONFLICT (id) DO UPDATE
SET revision = excluded.revision, status = excluded.status,
    document = excluded.document, changed_at = excluded.changed_at
WHERE campaigns.revision < excluded.revision
