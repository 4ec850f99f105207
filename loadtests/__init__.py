"""Sales under load, by Locust, and a rehearsal. Start at locustfile.py; README.md says how to run it."""
