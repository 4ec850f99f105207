-- A campaign as it was last changed, and this instant: all that a report says is as of it.
SELECT document, status, now() FROM campaigns WHERE id = %(campaign)s
