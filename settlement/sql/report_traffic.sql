-- How often what happened, by minute.
SELECT minute, what, count FROM traffic WHERE campaign = %(campaign)s ORDER BY minute, what
