"""From the outbox to the book: relay, worker, sweeper, refunds, audit; RabbitMQ and PostgreSQL."""
