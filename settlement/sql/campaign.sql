-- A campaign as it was last changed.
SELECT revision, status, document FROM campaigns WHERE id = %(campaign)s
