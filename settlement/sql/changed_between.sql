-- Whether any order of these campaigns last changed between two instants, neither of them included.
SELECT EXISTS (
    SELECT FROM orders
    WHERE campaign = ANY(%(campaigns)s)
      AND updated_at > %(after)s
      AND updated_at < %(before)s
)
