-- How many different people came. No row where nothing was noted.
SELECT visitors, participants FROM traffic_people WHERE campaign = %(campaign)s
