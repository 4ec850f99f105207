"""Traffic: what reports tell and no event does."""

from alembic import op

from settlement.statements import statement

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute(statement("0005_traffic"))


def downgrade() -> None:
    raise RuntimeError("The book of record is not taken down. Restore a backup instead.")
