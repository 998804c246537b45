# SPDX-License-Identifier: Apache-2.0
"""What one authorization question costs: FAB, Airflow's simple auth manager and ours, on one Postgres.

hatch run bench:security_checks [--dags 2000 10000]

Each manager answers in a process of its own, one after the other, without a web server. `global` is a role
that reads everything, `team` one with 40 Dags by id, `pattern` one with 50 patterns (FAB has none: its peer is
`team`), `big` one with 1,000 Dags by id. Smallest of five rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

if TYPE_CHECKING:
    from collections.abc import Callable

MANAGERS = {
    "fab": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
    "simple": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
    "ours": "tradewind.security.auth_manager.TradewindAuthManager",
}
TEAM, PATTERNS, BIG = 40, 50, 1000
ROUNDS = 5


def name(number: int) -> str:
    """The id of a Dag."""
    return f"team{number % 50:02d}_dag_{number:05d}"


def best(call: Callable[[], object], times: int) -> float:
    """Microseconds of one call."""
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(times):
            call()
        found.append((time.perf_counter() - began) / times * 1e6)
    return min(found)


def fill(count: int) -> None:
    """Make the Dags, in 50 bundles."""
    from airflow.models import dag as models
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session

    initdb()
    with create_session(scoped=False) as session:
        session.add_all(DagBundleModel(name=f"team{number:02d}") for number in range(50))
        session.flush()
        now = datetime.now(timezone.utc)
        make: Any = models.DagModel
        session.add_all(
            make(
                dag_id=name(number),
                bundle_name=f"team{number % 50:02d}",
                fileloc=f"/dags/{name(number)}.py",
                relative_fileloc=f"{name(number)}.py",
                owners="somebody",
                is_stale=False,
                is_paused=False,
                last_parsed_time=now,
                timetable_summary="None",
                timetable_description="Never, external triggers only",
            )
            for number in range(count)
        )


def fab_users() -> dict[str, Any]:
    """FAB's manager with a user for each kind of role, as its security manager makes them."""
    from airflow.providers.fab.auth_manager.models import User
    from airflow.providers.fab.auth_manager.security_manager.override import FabAirflowSecurityManagerOverride
    from airflow.providers.fab.www.security_appless import ApplessAirflowSecurityManager
    from airflow.utils.session import create_session

    with create_session(scoped=False) as session:
        User.metadata.create_all(
            session.connection(), tables=[t for n, t in User.metadata.tables.items() if n.startswith("ab_")]
        )
        manager = ApplessAirflowSecurityManager(session=session)
        manager.bulk_sync_roles(FabAirflowSecurityManagerOverride.ROLE_CONFIGS)
        general = [("can_create", "DAG Runs"), ("can_edit", "Task Instances")]
        general += [("can_read", what) for what in ("DAG Runs", "Task Instances", "HITL Detail")]
        for role, count in (("team", TEAM), ("big", BIG)):
            made = manager.add_role(role)
            wanted = [
                (action, f"DAG:{name(n * 50)}" if role == "team" else f"DAG:{name(n)}")
                for n in range(count)
                for action in ("can_read", "can_edit")
            ]
            for action, resource in (*wanted, *general):
                manager.add_permission_to_role(made, manager.create_permission(action, resource))
        for role in ("Viewer", "team", "big"):
            manager.add_user(role, role, "x", f"{role}@x.example", manager.find_role(role), hashed_password="x")  # noqa: S106
        session.flush()
    return {"global": "Viewer", "team": "team", "big": "big"}


POLICY = {
    "version": 1,
    "bindings": [
        {"user": "global", "role": "ws_member", "scope": "workspace/default"},
        {
            "user": "team",
            "role": "dag_author",
            "scope": "deployment/default",
            "dags": {"ids": [name(n * 50) for n in range(TEAM)]},
        },
        {
            "user": "big",
            "role": "dag_viewer",
            "scope": "deployment/default",
            "dags": {"ids": [name(n) for n in range(BIG)]},
        },
        {
            "user": "pattern",
            "role": "dag_author",
            "scope": "deployment/default",
            "dags": {"ids": [f"team{n:02d}_*_0{n:02d}??" for n in range(PATTERNS)]},
        },
    ],
}


def measure(side: str, count: int) -> dict[str, dict[str, float]]:  # noqa: PLR0915 - one table
    """Measure one manager."""
    from airflow import settings
    from airflow.api_fastapi.app import create_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import event, select

    users: dict[str, Any]
    manager: Any
    if side == "fab":
        from airflow.providers.fab.auth_manager.models import User

        names = fab_users()
        manager = create_auth_manager()

        def load(role: str) -> Any:
            with create_session(scoped=False) as session:
                user = session.scalars(select(User).where(User.username == names[role])).one()
                _ = user.perms
                session.expunge_all()
            return user

        users = {role: load(role) for role in names}
    elif side == "simple":
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

        manager = create_auth_manager()
        users = {"global": SimpleAuthManagerUser(username="viewer", role="viewer")}

        def load(role: str) -> Any:
            return SimpleAuthManagerUser(username=role, role="viewer")
    else:
        from tradewind.security.principal import Principal
        from tradewind.security.store.db_manager import SecurityDBManager

        with create_session(scoped=False) as session:
            tables: Any = SecurityDBManager
            tables(session).initdb()
        manager = create_auth_manager()
        users = {role: Principal(role) for role in ("global", "team", "big", "pattern")}

        def load(role: str) -> Any:
            manager.rules._compiled.clear()
            manager.rules.of(Principal(role))

    ids = {name(number) for number in range(count)}
    sample = sorted(ids)[:200]
    statements: list[str] = []
    event.listen(settings.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    found: dict[str, dict[str, float]] = {}
    for role, user in users.items():
        details = [DagDetails(id=one) for one in sample]

        def ask(method: str, entity: DagAccessEntity | None, user: Any = user, details: Any = details) -> None:
            for one in details:
                manager.is_authorized_dag(method=method, access_entity=entity, details=one, user=user)

        def page(user: Any = user) -> None:
            permitted = manager.get_authorized_dag_ids(user=user)
            with create_session(scoped=False) as session:
                query = select(DagModel.dag_id).where(DagModel.dag_id.in_(permitted or set()))
                session.execute(query.order_by(DagModel.dag_id).limit(50)).all()

        def permitted(user: Any = user) -> Any:
            return manager.get_authorized_dag_ids(user=user)

        permitted()
        statements.clear()
        permitted()
        queries = len(statements)
        found[role] = {
            "is_authorized_dag GET": best(lambda: ask("GET", None), 20) / len(sample),
            "is_authorized_dag RUN POST": best(lambda: ask("POST", DagAccessEntity.RUN), 20) / len(sample),
            f"filter of {count} ids": best(
                partial(manager.filter_authorized_dag_ids, dag_ids=ids, user=user, method="GET"), 5
            ),
            "get_authorized_dag_ids": best(permitted, 5),
            "its queries": queries,
            "first page of 50": best(page, 3),
            "cold principal": best(partial(load, role), 1),
        }
    return found


def run(side: str, count: int, url: str, home: Path) -> dict[str, dict[str, float]]:
    """Measure one manager in a process of its own."""
    policy = home / "policy.yaml"
    policy.write_text(json.dumps(POLICY), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, __file__, "--side", side, "--dags", str(count)],
        env={
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__AUTH_MANAGER": MANAGERS[side],
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": "",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "AIRFLOW__TRADEWIND_SECURITY__POLICY_FILE": str(policy),
        },
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    answer: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dags", type=int, nargs="+", default=[2000, 10000])
    parser.add_argument("--side", choices=[*MANAGERS, "fill"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side == "fill":
        fill(options.dags[0])
        return
    if options.side:
        print(json.dumps(measure(options.side, options.dags[0])))  # noqa: T201 - read by the parent
        return
    from support.services import running_postgres

    console = Console()
    with tempfile.TemporaryDirectory(prefix="tradewind-bench-") as folder, running_postgres() as postgres:
        for count in options.dags:
            url = postgres.url(postgres.create_database())
            with console.status(f"{count} Dags"):
                home = Path(folder) / str(count)
                home.mkdir()
                env = {"AIRFLOW_HOME": str(home), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url}
                subprocess.run(
                    [sys.executable, __file__, "--side", "fill", "--dags", str(count)],
                    env={**os.environ, **env, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": ""},
                    stdout=subprocess.DEVNULL,
                    check=True,
                )
                sides = {side: run(side, count, url, home) for side in MANAGERS}
            table = Table(title=f"{count} Dags, microseconds")
            for column in ("role", "question", *MANAGERS, "ours to FAB"):
                table.add_column(column)
            for role, figures in sides["ours"].items():
                peer = sides["fab"].get(role) or sides["fab"]["team"]
                for what, value in figures.items():
                    theirs, simple = peer[what], sides["simple"].get(role, {}).get(what)
                    ratio = f"{value / theirs:.5f}x" if theirs else ""
                    shown = f"{simple:,.2f}" if simple is not None else ""
                    table.add_row(role, what, f"{theirs:,.2f}", shown, f"{value:,.2f}", ratio)
            console.print(table)


if __name__ == "__main__":
    main()
