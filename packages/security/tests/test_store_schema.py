# SPDX-License-Identifier: Apache-2.0
"""The tables: made from the models, made by migrations, upgraded, dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow import settings
from airflow.utils.db_manager import RunDBManager
from airflow.utils.session import create_session
from sqlalchemy import inspect, text
from store_fixtures import using_database

from tradewind.security.store.db_manager import SecurityDBManager

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.services import Postgres

TABLES = {
    "tw_api_token",
    "tw_audit",
    "tw_binding",
    "tw_generation",
    "tw_session",
    "tw_team",
    "tw_team_member",
    "tw_user",
}


def manage(method: str, *args: Any, **kwargs: Any) -> Any:
    with create_session(scoped=False) as session:
        return getattr(SecurityDBManager(session), method)(*args, **kwargs)


def tables() -> set[str]:
    return set(inspect(settings.get_engine()).get_table_names())


def schema() -> dict[str, Any]:
    """All that the database knows about our tables, comparable."""
    inspector = inspect(settings.get_engine())
    return {
        table: {
            "columns": [
                (
                    column["name"],
                    repr(column["type"]),
                    column["nullable"],
                    column["default"],
                    column.get("autoincrement"),
                )
                for column in inspector.get_columns(table)
            ],
            "primary key": inspector.get_pk_constraint(table),
            "indexes": sorted(inspector.get_indexes(table), key=str),
            "unique": sorted(inspector.get_unique_constraints(table), key=str),
            "foreign keys": sorted(inspector.get_foreign_keys(table), key=str),
        }
        for table in sorted(TABLES)
    }


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/empty.db"
    else:
        server: Postgres = request.getfixturevalue("security_postgres")
        url = server.url(server.create_database())
    with using_database(url):
        yield url


def test_migrations_and_models_make_the_same_tables(empty_database):
    manage("initdb")
    from_models = schema()
    manage("downgrade", "base")
    assert tables() & TABLES == set()
    manage("initdb", use_migration_files=True)
    assert schema() == from_models
    assert manage("check_migration")


def test_no_change_of_a_model_is_without_migration(empty_database):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    manage("initdb", use_migration_files=True)
    with settings.get_engine().connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": True,
                "include_name": lambda name, kind, _: kind != "table" or name in TABLES,
            },
        )
        assert compare_metadata(context, SecurityDBManager.metadata) == []


@pytest.mark.parametrize("use_migration_files", [False, True])
def test_upgrading_nothing_makes_all_and_upgrading_again_changes_nothing(empty_database, use_migration_files):
    assert not manage("check_migration")
    manage("upgradedb", use_migration_files=use_migration_files)
    assert tables() == {*TABLES, "alembic_version_tradewind_security"}
    with create_session(scoped=False) as session:
        session.execute(text("INSERT INTO tw_generation (id, value) VALUES (1, 7)"))
    manage("upgradedb", use_migration_files=use_migration_files)
    manage("initdb", use_migration_files=use_migration_files)
    with create_session(scoped=False) as session:
        assert session.scalar(text("SELECT value FROM tw_generation")) == 7
    assert manage("check_migration")


def test_dropping_leaves_nothing_and_tables_of_others_alone(empty_database):
    manage("initdb")
    with create_session(scoped=False) as session:
        session.execute(text("CREATE TABLE other (id INTEGER)"))
    with settings.get_engine().begin() as connection, create_session(scoped=False) as session:
        SecurityDBManager(session).drop_tables(connection)
    assert tables() == {"other"}


def test_a_downgrade_that_starts_elsewhere_only_prints_sql(empty_database, capsys):
    manage("initdb")
    with pytest.raises(ValueError, match="show_sql_only"):
        manage("downgrade", "base", from_revision="0001")
    manage("downgrade", "base", from_revision="0001", show_sql_only=True)
    assert "DROP TABLE tw_user" in capsys.readouterr().out
    assert tables() >= TABLES


def test_airflow_accepts_the_manager():
    RunDBManager._validate(SecurityDBManager)
    with create_session(scoped=False) as session:
        heads = SecurityDBManager(session).get_script_object().get_heads()
    assert heads == [list(SecurityDBManager.revision_heads_map.values())[-1]]
