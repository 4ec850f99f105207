"""The domain and its kernel: campaigns, reservations, claims; Redis and a model of it."""
