-- Take in how often things happened. A store that has lost its count takes nothing back.
INSERT INTO traffic AS t (campaign, minute, what, count)
SELECT %(campaign)s, minute, what, count
FROM jsonb_to_recordset(%(counts)s::jsonb) AS found (minute timestamptz, what text, count bigint)
ORDER BY minute, what
ON CONFLICT (campaign, minute, what) DO UPDATE SET count = excluded.count
WHERE t.count < excluded.count
