-- Take in campaigns as they were changed. A late event never overwrites a newer revision.
WITH changed AS (
    SELECT * FROM jsonb_to_recordset(%(rows)s::jsonb)
        AS t (id text, revision bigint, status text, document jsonb, at timestamptz)
), kept AS (
    INSERT INTO campaign_revisions (campaign, revision, status, document, changed_at)
    SELECT id, revision, status, document, at FROM changed
    ON CONFLICT DO NOTHING
)
INSERT INTO campaigns (id, revision, status, document, changed_at)
SELECT DISTINCT ON (id) id, revision, status, document, at
FROM changed
ORDER BY id, revision DESC
ON CONFLICT (id) DO UPDATE
SET revision = excluded.revision, status = excluded.status,
    document = excluded.document, changed_at = excluded.changed_at
WHERE campaigns.revision < excluded.revision
