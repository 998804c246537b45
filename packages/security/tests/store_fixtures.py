# SPDX-License-Identifier: Apache-2.0
"""Real databases with our tables, and real processes beside this one that use the same database."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.services import Postgres, running_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONN = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


@contextmanager
def using_database(url: str) -> Iterator[str]:
    """Let this process's Airflow use a database."""
    from airflow import settings

    before = os.environ[_CONN]
    # Nothing here is asynchronous, and Postgres would need another driver for it.
    os.environ[f"{_CONN}_ASYNC"] = ""

    def use(database: str) -> None:
        let_go()
        settings.dispose_orm(do_log=False)
        os.environ[_CONN] = database
        settings.configure_vars()
        settings.configure_orm()

    use(url)
    try:
        yield url
    finally:
        del os.environ[f"{_CONN}_ASYNC"]
        use(before)


def let_go() -> None:
    """End what this process's threads do with the database, which is about to be taken away."""
    from tradewind.security.exceptions import StoreUnavailableError
    from tradewind.security.store import usage
    from tradewind.security.store.transaction import DIRECTORIES

    for directory in list(DIRECTORIES):
        directory.close()
    with suppress(StoreUnavailableError):
        usage.flush()


def make_tables() -> None:
    from airflow.utils.session import create_session

    from tradewind.security.store.db_manager import SecurityDBManager

    with create_session(scoped=False) as session:
        SecurityDBManager(session).initdb()


@pytest.fixture(scope="session")
def made_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "airflow.db"
    with using_database(f"sqlite:///{path}"):
        make_tables()
    return path


@pytest.fixture
def store(made_sqlite: Path, tmp_path: Path) -> Iterator[str]:
    """Empty tables in SQLite; the URL."""
    path = tmp_path / "airflow.db"
    shutil.copy(made_sqlite, path)
    with using_database(f"sqlite:///{path}") as url:
        yield url


@pytest.fixture(scope="session")
def security_postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_store(security_postgres: Postgres) -> Iterator[str]:
    """Empty tables in Postgres; the URL."""
    with using_database(security_postgres.url(security_postgres.create_database())) as url:
        make_tables()
        yield url


@contextmanager
def counted_queries() -> Iterator[list[str]]:
    """The statements that this process sends meanwhile, from any thread."""
    from airflow import settings
    from sqlalchemy import event

    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    engine = settings.get_engine()
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


class Worker:
    """Another process that uses the store; see `store_worker.py`."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("store_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, _CONN: url, f"{_CONN}_ASYNC": ""},
            text=True,
        )
        assert self.receive() == "ready"

    def send(self, name: str, **arguments: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"name": name, "arguments": arguments}) + "\n")
        self._process.stdin.flush()

    def receive(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            pytest.fail(f"the worker ended with {self._process.wait(10)}")
        return json.loads(line)

    def ask(self, name: str, **arguments: Any) -> Any:
        self.send(name, **arguments)
        return self.receive()

    def stop(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._process.stdout.close()


@pytest.fixture(scope="session")
def _workers(security_postgres: Postgres) -> Iterator[list[Worker]]:
    url = security_postgres.url("postgres")
    workers: list[Worker] = []
    try:
        for _ in range(3):
            workers.append(Worker(url))
        yield workers
    finally:
        for worker in workers:
            worker.stop()


@pytest.fixture
def workers(_workers: list[Worker], postgres_store: str) -> list[Worker]:
    """Three processes that use the same Postgres database as this one."""
    for worker in _workers:
        worker.ask("use", url=postgres_store)
    return _workers


def ask_all(workers: list[Worker], name: str, **arguments: Any) -> list[Any]:
    """Let all workers do the same at the same time."""
    for worker in workers:
        worker.send(name, **arguments)
    return [worker.receive() for worker in workers]
