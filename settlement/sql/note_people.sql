-- Take in how many different people came; never fewer than before.
INSERT INTO traffic_people AS t (campaign, visitors, participants)
VALUES (%(campaign)s, %(visitors)s, %(participants)s)
ON CONFLICT (campaign) DO UPDATE
SET visitors = greatest(t.visitors, excluded.visitors),
    participants = greatest(t.participants, excluded.participants)
WHERE t.visitors < excluded.visitors OR t.participants < excluded.participants
