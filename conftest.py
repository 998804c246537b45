# SPDX-License-Identifier: Apache-2.0
"""What every test run shares: a home of its own for Airflow, and markers that need more than Python."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

# Tests that need something no wheel offers, or wheels that few people want; `.ci/run` installs it for them.
_SPECIAL_MARKERS = ("azurite", "broker", "browser", "cloud", "fab", "image", "netns", "oidc")

_HOME = Path(tempfile.mkdtemp(prefix="tradewind-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

# Before anything imports airflow: it reads these once. A person's own settings must not reach the tests.
for _name in [name for name in os.environ if name.startswith(("AIRFLOW_", "TRADEWIND_", "_AIRFLOW_"))]:
    del os.environ[_name]
os.environ.update(
    AIRFLOW_HOME=str(_HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME}/airflow.db",
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
    NO_PROXY="127.0.0.1,localhost",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs more than Python, unless `-m` says what to run."""
    if config.option.markexpr:
        return
    special = [item for item in items if any(item.get_closest_marker(name) for name in _SPECIAL_MARKERS)]
    if special:
        items[:] = [item for item in items if item not in special]
        config.hook.pytest_deselected(items=special)
        config.stash[_left_out] = special


_left_out = pytest.StashKey[list[pytest.Item]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line what was left out and how to run it."""
    special = config.stash.get(_left_out, [])
    if special:
        names = [name for name in _SPECIAL_MARKERS if any(i.get_closest_marker(name) for i in special)]
        terminalreporter.write_line(
            f"{len(special)} tests deselected that need more than Python ({', '.join(names)}); "
            f'run them with: hatch run test -m "{" or ".join(names)}" (what they need: pytest --markers)'
        )


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """The AIRFLOW_HOME of this test run."""
    return _HOME


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with Airflow's schema, made once for each session; copy it, don't change it."""
    folder = tmp_path_factory.mktemp("migrated")
    database = folder / "airflow.db"
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env={
            **os.environ,
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}",
        },
        check=True,
        capture_output=True,
        timeout=300,
    )
    return database


@pytest.fixture
def airflow_db(migrated_sqlite: Path, airflow_home: Path) -> Path:
    """A fresh metadata database for this test, where this process's Airflow expects it."""
    database = airflow_home / "airflow.db"
    shutil.copy(migrated_sqlite, database)
    return database
