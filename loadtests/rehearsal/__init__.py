"""A rehearsal: the opening of a campaign, played with copies of it before the day. Start at rehearse.py.

Needs nothing that Doorbuster itself does not need; `doorbuster rehearse` is the command.
"""
