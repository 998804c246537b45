# SPDX-License-Identifier: Apache-2.0
"""What a list page costs on a real api-server: FAB and ours, on Postgres, requests in turns.

hatch run bench:security_api_server [--dags 2000 10000] [--requests 40]

`global` reads every Dag, `team` 40 of them by id. One worker each; the servers and Postgres share this machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table
from security_checks import MANAGERS, POLICY, fab_users, fill

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.airflow_server import free_port, wait_for
from support.services import running_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "correct horse battery staple"  # noqa: S105 - of a server that lives for minutes
ROLES = ("global", "team")
SIDES = ("fab", "ours")


def prepare(side: str, count: int) -> None:
    """Make the Dags and the users of one side's database."""
    import yaml

    fill(count)
    if side == "fab":
        from airflow.providers.fab.auth_manager.models import User
        from airflow.utils.session import create_session
        from sqlalchemy import select
        from werkzeug.security import generate_password_hash

        names = fab_users()
        with create_session(scoped=False) as session:
            for role in ROLES:
                user = session.scalars(select(User).where(User.username == names[role])).one()
                user.username = role
                user.password = generate_password_hash(PASSWORD)
        return
    from airflow.utils.session import create_session

    from tradewind.security.store import users
    from tradewind.security.store.db_manager import SecurityDBManager

    with create_session(scoped=False) as session:
        tables: Any = SecurityDBManager
        tables(session).initdb()
    for role in ROLES:
        users.create(role, password=PASSWORD)
    Path(os.environ["AIRFLOW__TRADEWIND_SECURITY__POLICY_FILE"]).write_text(yaml.safe_dump(POLICY), encoding="utf-8")


@contextmanager
def server(side: str, home: Path, url: str, count: int) -> Iterator[dict[str, httpx.Client]]:
    """A running api-server; gives a client for each role."""
    home.mkdir(parents=True)
    port = free_port()
    env = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__SECRET_KEY": "bench" * 8,
        "AIRFLOW__API_AUTH__JWT_SECRET": "bench" * 16,
        "AIRFLOW__CORE__AUTH_MANAGER": MANAGERS[side],
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW__TRADEWIND_SECURITY__AUDIT": "table:",
        "AIRFLOW__TRADEWIND_SECURITY__CREATE_ADMIN": "False",
        "AIRFLOW__TRADEWIND_SECURITY__POLICY_FILE": str(home / "policy.yaml"),
        "TRADEWIND_CONFIG_DEFAULTS": "off",
    }
    arguments = [sys.executable, __file__, "--prepare", side, "--dags", str(count)]
    synchronous = {**env, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": ""}
    subprocess.run(arguments, env=synchronous, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow", "api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        base = f"http://127.0.0.1:{port}"
        wait_for(
            lambda: httpx.get(f"{base}/api/v2/version", trust_env=False).is_success, what=side, timeout_seconds=180
        )
        with ExitStack() as stack:
            clients = {}
            for role in ROLES:
                body = {"username": role, "password": PASSWORD}
                token = httpx.post(f"{base}/auth/token", json=body, trust_env=False, timeout=60).raise_for_status()
                header = {"Authorization": f"Bearer {token.json()['access_token']}"}
                clients[role] = stack.enter_context(
                    httpx.Client(base_url=base, headers=header, trust_env=False, timeout=60)
                )
            yield clients
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.terminate()
        process.terminate()
        process.wait(30)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dags", type=int, nargs="+", default=[2000, 10000])
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--prepare", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        prepare(options.prepare, options.dags[0])
        return
    console = Console()
    medians: dict[tuple[int, str, str, str], float] = {}
    pages = ("/api/v2/dags?limit=50", "/ui/dags?limit=50", "/ui/auth/me")
    with tempfile.TemporaryDirectory(prefix="tradewind-bench-") as folder, running_postgres() as postgres:
        for count in options.dags:
            with ExitStack() as stack, console.status(f"{count} Dags"):
                clients = {
                    side: stack.enter_context(
                        server(side, Path(folder) / f"{side}{count}", postgres.url(postgres.create_database()), count)
                    )
                    for side in SIDES
                }
                for role in ROLES:
                    for page in pages:
                        times: dict[str, list[float]] = {side: [] for side in SIDES}
                        for number in range(options.requests + 3):
                            for side in SIDES:
                                began = time.perf_counter()
                                clients[side][role].get(page).raise_for_status()
                                if number >= 3:  # noqa: PLR2004 - the first ones open connections
                                    times[side].append(time.perf_counter() - began)
                        for side in SIDES:
                            medians[count, role, page, side] = statistics.median(times[side]) * 1000
    table = Table(title="one request, p50")
    for column in ("Dags", "role", "page", "FAB", "ours", "ours to FAB", "ours, growth"):
        table.add_column(column)
    for count in options.dags:
        for role in ROLES:
            for page in pages:
                fab, ours = (medians[count, role, page, side] for side in SIDES)
                growth = ours / medians[options.dags[0], role, page, "ours"]
                table.add_row(
                    str(count), role, page, f"{fab:.1f} ms", f"{ours:.1f} ms", f"{ours / fab:.2f}x", f"{growth:.2f}x"
                )
    console.print(table)


if __name__ == "__main__":
    main()
