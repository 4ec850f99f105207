"""Notifications: what the merchant is told."""

from alembic import op

from settlement.statements import statement

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute(statement("0002_notifications"))


def downgrade() -> None:
    raise RuntimeError("The book of record is not taken down. Restore a backup instead.")
