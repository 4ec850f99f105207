"""The fault matrix: what may break breaks under load, and the clients' own log judges what became of it.

Start at matrix.py, which lists the faults, and at round.py, which plays one of them once.
"""
