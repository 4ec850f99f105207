"""The book's schema, by alembic; the statements are in settlement/sql."""
