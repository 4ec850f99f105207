"""A flash sale under load, by Locust. Start at locustfile.py; README.md says how to run it."""
