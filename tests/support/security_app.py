# SPDX-License-Identifier: Apache-2.0
"""Airflow's real core app with our auth manager, on a database that has something of everything, twice.

Whatever belongs to team `alpha` has `own` in its name, whatever belongs to team `beta` has `foreign`. So an
answer that shows a `foreign` to somebody who may only see his own things is a leak.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import httpx
from store_fixtures import make_tables, using_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastapi import FastAPI

    from tradewind.security.auth_manager import TradewindAuthManager

SIDES = ("own", "foreign")
_DAG = """
from datetime import datetime, timedelta
from airflow.sdk import Asset, AssetAlias, DAG, task

with DAG("{side}_dag", tags=["{side}_tag"], schedule=None, start_date=datetime(2026, 1, 1)):
    @task(outlets=[Asset("{side}_asset"), AssetAlias("{side}_alias")])
    def {side}_task():
        return "{side}"
    {side}_task()

with DAG("{side}_consumer", schedule=[Asset("{side}_asset")], start_date=datetime(2026, 1, 1)):
    @task
    def {side}_consume():
        pass
    {side}_consume()
"""


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set variables of the environment for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class AppClient:
    """Talks to an ASGI app in this process, from synchronous tests, without a socket."""

    def __init__(self, app: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://testserver", timeout=60)

    def request(self, method: str, path: str, *, token: str | None = None, **options: Any) -> httpx.Response:
        headers = {**options.pop("headers", {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        coroutine = self._client.request(method, path, headers=headers, **options)
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)
        finally:
            # The next request is somebody else's.
            self._client.cookies.clear()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@dataclass
class SecuredApp:
    """The app, and what a test needs to talk to it.

    Args:
        app: The app.
        manager: Its auth manager.
        client: Its client.
        ids: Ids of what was made, by name and side.
    """

    app: FastAPI
    manager: TradewindAuthManager
    client: AppClient
    ids: dict[str, Any] = field(default_factory=dict)

    def session(self, user: str, *, seconds: float = 3600, groups: frozenset[str] = frozenset()) -> str:
        """A session token of a user, as a login makes it."""
        from tradewind.security.principal import Principal
        from tradewind.security.store import sessions

        end = datetime.now(timezone.utc) + timedelta(seconds=seconds)
        session = sessions.start(user, ends_at=end, groups=groups)
        principal = Principal(user, session=session, ends_at=end.timestamp(), groups=groups)
        return self.manager.generate_jwt(replace(principal, renewing=True))

    def signed(self, claims: dict[str, Any], **changes: Any) -> str:
        """A token with this deployment's key and any claims."""
        import jwt

        signer = self.manager._get_token_signer()
        now = int(time.time())
        base = {"iat": now, "nbf": now, "exp": now + 600, "aud": signer.audience, "jti": "x" * 32}
        return jwt.encode({**base, **claims, **changes}, signer.signing_arg, algorithm=signer.algorithm)


@contextmanager
def secured_app(folder: Path, policy: str, **settings: str) -> Iterator[SecuredApp]:
    """Airflow's core app on an empty SQLite database with two teams, two bundles and their Dags."""
    from airflow.api_fastapi.app import create_app, get_auth_manager, purge_cached_app

    file = folder / "policy.yaml"
    file.write_text(policy, encoding="utf-8")
    bundles = []
    for side, team in zip(SIDES, ("alpha", "beta"), strict=True):
        (folder / side).mkdir()
        (folder / side / f"{side}.py").write_text(_DAG.format(side=side), encoding="utf-8")
        bundles.append(
            {
                "name": f"{side}_bundle",
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": str(folder / side)},
                "team_name": team,
            }
        )
    values = {
        "AIRFLOW__CORE__AUTH_MANAGER": "tradewind.security.auth_manager.TradewindAuthManager",
        "AIRFLOW__CORE__MULTI_TEAM": "True",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "AIRFLOW__TRADEWIND_SECURITY__POLICY_FILE": str(file),
        "AIRFLOW__TRADEWIND_SECURITY__CREATE_ADMIN": "False",
        "AIRFLOW__TRADEWIND_SECURITY__AUDIT": "table:",
        "AIRFLOW__API_AUTH__JWT_SECRET": "0" * 64,
        "AIRFLOW__API__SECRET_KEY": "1" * 64,
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        **settings,
    }
    with environment(**values), using_database(f"sqlite:///{folder}/airflow.db"):
        _migrate()
        _parse(folder)
        purge_cached_app()
        app = create_app(apps="core")
        client = AppClient(app)
        manager: Any = get_auth_manager()
        try:
            yield SecuredApp(app, manager, client)
        finally:
            client.close()
            manager.directory.close()
            manager.audit.close()
            purge_cached_app()


def _migrate() -> None:
    from airflow.models.team import Team
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session

    initdb()
    make_tables()
    with create_session(scoped=False) as session:
        session.add_all([Team(name="alpha"), Team(name="beta")])


def _parse(folder: Path) -> None:
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.session import create_session

    DagBundlesManager().sync_bundles_to_db()
    for side in SIDES:
        bag = DagBag(folder / side, bundle_path=folder / side, bundle_name=f"{side}_bundle")
        assert not bag.import_errors
        with create_session(scoped=False) as session:
            assert session.get(DagBundleModel, f"{side}_bundle") is not None
            sync_bag_to_db(bag, f"{side}_bundle", None, session=session)
