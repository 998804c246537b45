# SPDX-License-Identifier: Apache-2.0
"""What `airflow db migrate`, `reset` and `downgrade` call for our tables."""

from __future__ import annotations

from pathlib import Path

from airflow.utils.db_manager import BaseDBManager

from tradewind.security.store.models import Base

__all__ = ["SecurityDBManager"]

_FOLDER = Path(__file__).parent


class SecurityDBManager(BaseDBManager):
    """Makes, migrates and drops the tables of tradewind.security.

    Args:
        session: Session of Airflow's metadata database.
    """

    metadata = Base.metadata
    version_table_name = "alembic_version_tradewind_security"
    migration_dir = (_FOLDER / "migrations").as_posix()
    alembic_file = (_FOLDER / "alembic.ini").as_posix()
    supports_table_dropping = True
    revision_heads_map = {"0.1.0": "0001"}  # noqa: RUF012  # declared so by the base class

    def downgrade(self, to_revision: str, from_revision: str | None = None, show_sql_only: bool = False) -> None:
        """Undo migrations.

        Args:
            to_revision: Revision to end at, or `base` for no tables at all.
            from_revision: Where to start; only together with `show_sql_only`.
            show_sql_only: Print the SQL and run nothing.

        Raises:
            ValueError: `from_revision` without `show_sql_only`.
        """
        from alembic import command

        if from_revision and not show_sql_only:
            raise ValueError("from_revision needs show_sql_only: a downgrade starts at the database's own revision")
        self._release_metadata_locks_if_needed()
        config = self.get_alembic_config()  # type: ignore[no-untyped-call]  # Airflow's own has no annotations
        if show_sql_only:
            current = self.get_current_revision()  # type: ignore[no-untyped-call]
            start = from_revision or current or self.get_script_object(config).get_current_head()
            command.downgrade(config, revision=f"{start}:{to_revision}", sql=True)
            return
        # A transaction left open by reading the revision would block the DDL of the other connection.
        self.session.commit()
        command.downgrade(config, revision=to_revision)
