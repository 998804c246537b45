# SPDX-License-Identifier: Apache-2.0
"""How alembic reaches the database: through Airflow's own engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow import settings
from alembic import context

from tradewind.security.store.db_manager import SecurityDBManager

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_OURS = {table.name for table in SecurityDBManager.metadata.tables.values()}
_COMMON: Mapping[str, Any] = {
    "target_metadata": SecurityDBManager.metadata,
    "version_table": SecurityDBManager.version_table_name,
    "compare_type": True,
    "compare_server_default": True,
    "render_as_batch": True,
    "include_name": lambda name, kind, _: kind != "table" or name in _OURS,
}


def _offline() -> None:
    context.configure(url=settings.SQL_ALCHEMY_CONN, literal_binds=True, **_COMMON)
    with context.begin_transaction():
        context.run_migrations()


def _online() -> None:
    with settings.get_engine().connect() as connection:  # type: ignore[no-untyped-call]  # Airflow has no annotation
        context.configure(connection=connection, transaction_per_migration=True, **_COMMON)
        with context.begin_transaction():
            context.run_migrations()


# Alembic runs this file by its path; importing it as a module of the package must do nothing.
if not __name__.endswith("migrations.env"):
    if context.is_offline_mode():
        _offline()
    else:
        _online()
