"""The book: campaigns, orders, order events, payments, refunds."""

from alembic import op

from settlement.statements import statement

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute(statement("0001_book"))


def downgrade() -> None:
    raise RuntimeError("The book of record is not taken down. Restore a backup instead.")
