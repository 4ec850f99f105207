"""Doorbuster beside its peers, measured on this machine. Start at __main__.py.

A part, such as peak.py, measures and yields Figures. targets.py says what they should come to; table.py
and picture.py show them.
"""
