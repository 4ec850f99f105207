"""What a campaign came to: figures from the book, each with its definition."""
