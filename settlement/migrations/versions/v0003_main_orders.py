"""Main orders."""

from alembic import op

from settlement.statements import statement

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute(statement("0003_main_orders"))


def downgrade() -> None:
    raise RuntimeError("The book of record is not taken down. Restore a backup instead.")
