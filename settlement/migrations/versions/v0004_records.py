"""Whole records, to rebuild the store from."""

from alembic import op

from settlement.statements import statement

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute(statement("0004_records"))


def downgrade() -> None:
    raise RuntimeError("The book of record is not taken down. Restore a backup instead.")
