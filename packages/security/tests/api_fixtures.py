# SPDX-License-Identifier: Apache-2.0
"""A real Airflow API server in this process, with our auth manager and a database of its own for each test."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient
from store_fixtures import make_tables, using_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastapi import FastAPI

    from tradewind.security.auth_manager import TradewindAuthManager

PASSWORD = "correct horse battery"  # noqa: S105 - of users who live for a test
POLICY = """
version: 1
organization: acme
workspace: data
deployment: prod
"""
SETTINGS = {
    "AIRFLOW__CORE__AUTH_MANAGER": "tradewind.security.auth_manager.TradewindAuthManager",
    "AIRFLOW__API__SECRET_KEY": "a secret of the tests" * 4,
    "AIRFLOW__API_AUTH__JWT_SECRET": "another secret of the tests" * 4,
    "AIRFLOW__TRADEWIND_SECURITY__AUDIT": "table:",
    "AIRFLOW__TRADEWIND_SECURITY__CREATE_ADMIN": "False",
}


def add_user(name: str, *roles: str, **binding: Any) -> None:
    """Make a local user with roles, each `role@scope`."""
    from tradewind.security.store import users

    users.create(name, password=PASSWORD)
    add_bindings(name, *roles, **binding)


def add_bindings(name: str, *roles: str, subject: str = "user", **binding: Any) -> None:
    """Give roles, each `role@scope`, or `role` for the deployment."""
    from tradewind.security.store import bindings

    for entry in roles:
        role, _, scope = entry.partition("@")
        values = {subject: name, "role": role, "scope": scope or "deployment/prod", **binding}
        bindings.create(values, created_by="test")


@dataclass
class Server:
    """A running app, and the state behind it."""

    app: FastAPI
    manager: TradewindAuthManager
    policy_file: Path

    def client(self, **options: Any) -> TestClient:
        """A browser or program without credentials that does not follow redirects."""
        return TestClient(self.app, follow_redirects=False, **options)

    def write_policy(self, text: str) -> None:
        self.policy_file.write_text(text, encoding="utf-8")
        self.manager.policies.refresh()
        assert self.manager.policies.problem is None
        self.settle()

    def settle(self) -> None:
        """What holds for a quarter of a second more holds no longer."""
        self.manager.__dict__.pop("rules", None)

    def user(self, name: str, *roles: str, **binding: Any) -> None:
        """A local user with roles, each `role@scope`."""
        add_user(name, *roles, **binding)
        self.settle()

    def service(self, name: str, *roles: str) -> None:
        """A service account with roles."""
        from tradewind.security.store import users

        users.create(name, kind="service")
        self.bind(name, *roles, subject="service")

    def bind(self, name: str, *roles: str, subject: str = "user", **binding: Any) -> None:
        """More roles."""
        add_bindings(name, *roles, subject=subject, **binding)
        self.settle()

    def as_user(self, name: str) -> TestClient:
        """A program with the session token of a local user."""
        client = self.client()
        answer = client.post("/auth/token", json={"username": name, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return client

    def with_token(self, owner: str, scopes: list[str] | None = None) -> TestClient:
        """A program with an API token."""
        from tradewind.security.store import tokens

        client = self.client()
        _, text = tokens.create(owner, "test", scopes, expires_in=3600)
        client.headers["Authorization"] = f"Bearer {text}"
        return client

    def browser(self, name: str) -> TestClient:
        """A browser in which a local user has logged in."""
        client = self.client()
        answer = client.post("/auth/login", data={"username": name, "password": PASSWORD})
        assert answer.status_code == 303, answer.text
        return client

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """The audit log, oldest first."""
        from tradewind.security.audit import tail

        assert self.manager.audit.flush()
        return list(reversed(tail(1000, event=event)))


@contextmanager
def serving(
    get_app: Callable[[], FastAPI], database: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, policy: str = POLICY
) -> Iterator[Server]:
    """Serve with a policy and a database.

    Args:
        get_app: Gives the app, which may have served other tests.
        database: A migrated SQLite file, which is copied.
        folder: Where to put what belongs to this server.
        monkeypatch: Sets the environment.
        policy: The policy.
    """
    from airflow.api_fastapi.app import _AuthManagerState, purge_cached_app

    copied = folder / "airflow.db"
    shutil.copy(database, copied)
    policy_file = folder / "policy.yaml"
    policy_file.write_text(policy, encoding="utf-8")
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW__TRADEWIND_SECURITY__POLICY_FILE", str(policy_file))
    with using_database(f"sqlite:///{copied}"):
        app = get_app()
        manager = app.state.auth_manager
        _AuthManagerState.instance = manager
        # All that it keeps is made when it is first asked for: as good as another one, a second earlier.
        manager.__dict__.clear()
        manager.init()
        try:
            yield Server(app, manager, policy_file)
        finally:
            manager.audit.close()
            manager.directory.close()
            purge_cached_app()


def made_app() -> FastAPI:
    """Airflow's app, made now."""
    from airflow.api_fastapi.app import create_app, purge_cached_app

    purge_cached_app()
    app = create_app(apps="core")
    app.state.auth_manager.directory.close()
    return app


@pytest.fixture(scope="session")
def airflow_app() -> Callable[[], FastAPI]:
    """Airflow's app, made when it is first asked for: it takes a second or two."""
    return cache(made_app)


@pytest.fixture(scope="session")
def airflow_with_ours(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with Airflow's tables and ours."""
    path = tmp_path_factory.mktemp("both") / "airflow.db"
    shutil.copy(migrated_sqlite, path)
    with using_database(f"sqlite:///{path}"):
        make_tables()
    return path


@pytest.fixture
def server(
    airflow_app: Callable[[], FastAPI], airflow_with_ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A server with a policy that grants nothing."""
    assert "AIRFLOW__API__BASE_URL" not in os.environ
    with serving(airflow_app, airflow_with_ours, tmp_path, monkeypatch) as running:
        yield running
