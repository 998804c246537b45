# SPDX-License-Identifier: Apache-2.0
"""The runtime's main job on this machine: `hatch run demo`.

Starts a Tradewind-tuned Airflow (SQLite, LocalExecutor, everything below ./.airflow), runs the example Dags
on real data, prints their result, and serves the UI until Ctrl-C. `--check` does the same without a person:
it verifies the result, prints a table of Dags and task instances, stops, and exits with 0 or 1.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil
    from httpx import Client
    from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
DAGS = Path(__file__).resolve().parent / "dags"
POLICY = Path(__file__).resolve().with_name("policy.yaml")

PYTHONS = ((3, 10), (3, 13))
AIRFLOW = "3.3."
# The order in which they are started; the api-server first, because the others talk to it.
COMPONENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
STOP_SECONDS = 10.0
INSIST_AFTER_SECONDS = 3.0
KILL_AFTER_SECONDS = 7.0
HEALTHY_WITHIN_SECONDS = 180.0
RUN_WITHIN_SECONDS = 300.0
POLL_SECONDS = 0.5
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
FLIGHTS = 336_776  # rows of the source file
KILLED_LINES = 200  # printed by killed_task before its supervisor is killed


class DemoError(Exception):
    """The demo can't go on; the message says why and what to do."""


class Stopped(BaseException):
    """SIGINT or SIGTERM arrived."""


@dataclass
class Result:
    """How one Dag run ended.

    Args:
        dag_id: The Dag.
        state: The Dag run's state.
        succeeded: Task instances that succeeded.
        total: Task instances of the run.
        seconds: From trigger to end.
        note: What was verified.
        verified: False when the run left a wrong result.
    """

    dag_id: str
    state: str
    succeeded: int
    total: int
    seconds: float
    note: str = ""
    verified: bool = True

    @property
    def ok(self) -> bool:
        """The run and each of its task instances succeeded, and what it left is right."""
        return self.state == "success" and self.succeeded == self.total > 0 and self.verified


@dataclass
class Airflow:
    """The processes of one Airflow on this machine.

    Args:
        home: AIRFLOW_HOME; everything is written below it.
        port: The api-server's port on 127.0.0.1.
        console: Where progress is shown.
    """

    home: Path
    port: int
    console: Console
    password: str = ""
    new_password: bool = False
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    launchers: list[psutil.Process] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The UI's address."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """The environment of every process: facts of this demo; the tuning comes from tradewind-config."""
        return {
            **os.environ,
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW_CONFIG": str(self.home / "airflow.cfg"),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__CORE__AUTH_MANAGER": "tradewind.security.auth_manager.TradewindAuthManager",
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "tradewind.logging.settings.LOGGING_CONFIG",
            "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"file://{self.home / 'storage' / 'logs'}",
            "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
            "AIRFLOW__TRADEWIND_SECURITY__AUDIT": f"table:,file://{self.home / 'audit'}",
            "AIRFLOW__TRADEWIND_SECURITY__POLICY_FILE": str(POLICY),
            # A killed supervisor is noticed in seconds, so that nobody waits for the second attempt.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "NO_PROXY": "127.0.0.1,localhost",
            "TRADEWIND_ENVIRONMENT_NAME": os.environ.get("TRADEWIND_ENVIRONMENT_NAME", "demo"),
            "TRADEWIND_IMAGE_TAG": os.environ.get("TRADEWIND_IMAGE_TAG", f"{runtime_version()}-demo"),
            "TRADEWIND_RUNTIME_VERSION": os.environ.get("TRADEWIND_RUNTIME_VERSION", runtime_version()),
        }

    def prepare(self) -> None:
        """Make the folders, the admin's password and the database.

        Raises:
            DemoError: The home can't be written, or its database can't be brought to this Airflow.
        """
        passwords = self.home / "passwords.json"
        if passwords.exists():
            self.password = json.loads(passwords.read_text(encoding="utf-8"))["admin"]
        else:
            self.password, self.new_password = secrets.token_urlsafe(12), True
            passwords.touch(mode=0o600)
            passwords.write_text(json.dumps({"admin": self.password}), encoding="utf-8")
        database = self.home / "airflow.db"
        before = database_revision(database)
        log = self.home / "components" / "db-migrate.log"
        with log.open("wb") as output:
            done = subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                check=False,
            )
        if done.returncode != 0:
            origin = f"is at revision {before}, which Airflow {version('apache-airflow')} can't migrate from"
            raise DemoError(
                f"{database} {origin if before else 'could not be created'} (see {log}). "
                f"Move {self.home} away, or choose another folder with --home."
            )
        after = database_revision(database)
        if before and before != after:
            self.console.print(f"  [dim]database of an older Airflow upgraded: {before} -> {after}[/dim]")

    def start(self, name: str) -> None:
        """Start one component in a session of its own, so that Ctrl-C reaches only us."""
        environment = self.environment()
        if name == "api-server":
            # Only for the process that makes the user: tasks inherit what the scheduler has.
            environment["AIRFLOW__TRADEWIND_SECURITY__ADMIN_PASSWORD"] = self.password
        with (self.home / "components" / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(  # noqa: S603 - fixed arguments
                [sys.executable, "-m", "airflow", *COMPONENTS[name]],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check_alive(self) -> None:
        """Look whether every component runs.

        Raises:
            DemoError: One ended; its last lines are in the message.
            Stopped: What started the demo has ended.
        """
        if not all(launcher.is_running() for launcher in self.launchers):
            raise Stopped
        for name, process in self.processes.items():
            if process.poll() is not None:
                path = self.home / "components" / f"{name}.log"
                tail = "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
                raise DemoError(f"the {name} ended with exit code {process.returncode}; the end of {path}:\n{tail}")

    def wait_until_healthy(self, client: Client) -> None:
        """Wait until Airflow itself says that each component is alive.

        Raises:
            DemoError: A component ended, or the time is up.
        """
        import httpx

        deadline = time.monotonic() + HEALTHY_WITHIN_SECONDS
        unhealthy: list[str] = ["api-server"]
        while unhealthy:
            self.check_alive()
            if time.monotonic() > deadline:
                raise DemoError(
                    f"not healthy after {HEALTHY_WITHIN_SECONDS:.0f} s: {', '.join(unhealthy)}; "
                    f"see {self.home / 'components'}"
                )
            try:
                health = client.get("/api/v2/monitor/health").raise_for_status().json()
            except httpx.HTTPError:
                time.sleep(POLL_SECONDS)
                continue
            names = ("metadatabase", "scheduler", "dag_processor", "triggerer")
            unhealthy = [name for name in names if (health.get(name) or {}).get("status") != "healthy"]
            if unhealthy:
                time.sleep(POLL_SECONDS)

    def stop(self) -> list[int]:
        """Stop everything that we started, with all its children, within `STOP_SECONDS`.

        Returns:
            Process ids that had to be killed.
        """
        import psutil

        begin = time.monotonic()
        end = begin + KILL_AFTER_SECONDS
        # Airflow's components take a second signal as "don't wait any longer".
        for deadline in (begin + INSIST_AFTER_SECONDS, end):
            for process in self.processes.values():
                if process.poll() is None:
                    process.terminate()
            for process in self.processes.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        # Orphans of the components are ours too: we are their subreaper.
        left = psutil.Process().children(recursive=True)
        _, left = psutil.wait_procs(left, timeout=max(0.0, end - time.monotonic()))
        for orphan in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                orphan.kill()
        psutil.wait_procs(left, timeout=STOP_SECONDS - KILL_AFTER_SECONDS)
        return [orphan.pid for orphan in left]


def database_revision(database: Path) -> str | None:
    """The Alembic revision of a metadata database; None where there is none.

    Raises:
        DemoError: The file is no SQLite database.
    """
    if not database.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError:
        return None
    except sqlite3.DatabaseError as error:
        raise DemoError(f"{database} is no SQLite database ({error}). Move it away, or use --home.") from error
    return str(row[0]) if row else None


def runtime_version() -> str:
    """The version of the runtime in this tree: the newest entry of image/releases.toml."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    releases = tomllib.loads((ROOT / "image" / "releases.toml").read_text(encoding="utf-8"))["release"]
    return str(max(releases, key=lambda r: tuple(int(part) for part in r["version"].split(".")))["version"])


def unsupported() -> str | None:
    """Why this Python or this Airflow can't run the demo; None when it can."""
    found = sys.version_info[:2]
    if not PYTHONS[0] <= found <= PYTHONS[1]:
        return f"Python {found[0]}.{found[1]} is not supported: use 3.10, 3.11, 3.12 or 3.13"
    try:
        airflow = version("apache-airflow")
    except PackageNotFoundError:
        return "apache-airflow is not installed: start the demo with `hatch run demo`"
    if not airflow.startswith(AIRFLOW):
        return f"Airflow {airflow} is not supported: use 3.3.x"
    return None


def choose_port(port: int) -> int:
    """Check that the port is free; 0 chooses a free one.

    Raises:
        DemoError: Something listens there, or it is no port that we may use.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            in_use = getattr(error, "errno", None) == errno.EADDRINUSE
            what = "is in use" if in_use else f"can't be used ({error})"
            raise DemoError(
                f"port {port} on 127.0.0.1 {what}: choose another one with --port (the api-server's setting "
                "[api] port, AIRFLOW__API__PORT), or end the process that listens there"
            ) from error
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def locked_home(home: Path) -> Iterator[Path]:
    """Make the home and keep other demos out of it.

    Raises:
        DemoError: It can't be written, or another demo runs in it.
    """
    try:
        (home / "components").mkdir(parents=True, exist_ok=True)
        lock = (home / "demo.lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise DemoError(f"{home} can't be written ({error.strerror}): choose another folder with --home") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise DemoError(
                f"another demo runs in {home} (process {lock.read().strip() or 'unknown'}): stop it, or choose "
                "another folder with --home"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield home


def authenticated(client: Client, password: str) -> None:
    """Log in as the admin."""
    answer = client.post("/auth/token", json={"username": "admin", "password": password}).raise_for_status()
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


def example_dags() -> list[str]:
    """The ids of the example Dags: a file has the name of its Dag."""
    return sorted(path.stem for path in DAGS.glob("*.py"))


def wait_for_dags(airflow: Airflow, client: Client, dag_ids: list[str]) -> None:
    """Wait until the Dag processor has parsed every example Dag.

    Raises:
        DemoError: A Dag file has an import error, or the time is up.
    """
    deadline = time.monotonic() + HEALTHY_WITHIN_SECONDS
    while True:
        airflow.check_alive()
        errors = client.get("/api/v2/importErrors").raise_for_status().json()["import_errors"]
        if errors:
            raise DemoError("\n".join(f"{e['filename']}: {e['stack_trace']}" for e in errors))
        found = {dag["dag_id"] for dag in client.get("/api/v2/dags").raise_for_status().json()["dags"]}
        missing = sorted(set(dag_ids) - found)
        if not missing:
            return
        if time.monotonic() > deadline:
            raise DemoError(f"not parsed after {HEALTHY_WITHIN_SECONDS:.0f} s: {', '.join(missing)}")
        time.sleep(POLL_SECONDS)


def trigger(client: Client, dag_id: str) -> str:
    """Unpause a Dag and trigger it; returns the run's id."""
    client.patch(f"/api/v2/dags/{dag_id}", json={"is_paused": False}).raise_for_status()
    answer = client.post(f"/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None}).raise_for_status()
    return str(answer.json()["dag_run_id"])


def follow(airflow: Airflow, client: Client, runs: dict[str, str]) -> list[Result]:
    """Wait for the end of every run, showing progress.

    Args:
        airflow: What runs them.
        client: Logged in.
        runs: Dag id to run id.

    Raises:
        DemoError: A component ended.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    begin = time.monotonic()
    results: dict[str, Result] = {}
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=airflow.console, transient=True) as progress:
        bars = {dag_id: progress.add_task(dag_id, total=None) for dag_id in runs}
        while len(results) < len(runs):
            airflow.check_alive()
            for dag_id, run_id in runs.items():
                if dag_id in results:
                    continue
                path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"
                state = client.get(path).raise_for_status().json()["state"]
                tasks: list[dict[str, Any]] = (
                    client.get(f"{path}/taskInstances").raise_for_status().json()["task_instances"]
                )
                succeeded = sum(task["state"] == "success" for task in tasks)
                progress.update(bars[dag_id], total=len(tasks), completed=succeeded)
                seconds = time.monotonic() - begin
                if state in {"success", "failed"} or seconds > RUN_WITHIN_SECONDS:
                    progress.stop_task(bars[dag_id])
                    results[dag_id] = Result(dag_id, state, succeeded, len(tasks), seconds)
            time.sleep(POLL_SECONDS)
    return [results[dag_id] for dag_id in runs]


def lines_of_killed_attempt(client: Client, run_id: str) -> int:
    """How many lines the UI shows of the attempt whose supervisor was killed."""
    path = f"/api/v2/dags/killed_task/dagRuns/{run_id}/taskInstances/lose_the_supervisor/logs/1"
    body = client.get(path, params={"full_content": True}).raise_for_status().json()
    return sum(str(message["event"]).startswith("line ") for message in body["content"])


def flights_result(home: Path) -> list[tuple[Any, ...]]:
    """Delays by airline, worst first, from the database that the Dag published."""
    import duckdb

    with duckdb.connect(str(home / "data" / "flights" / "flights.duckdb"), read_only=True) as connection:
        rows: list[tuple[Any, ...]] = connection.execute(
            "SELECT airline, flights, departure_delay_minutes, arrival_delay_minutes, late_percent "
            "FROM delays_by_airline ORDER BY arrival_delay_minutes DESC"
        ).fetchall()
    return rows


def show_flights(console: Console, rows: list[tuple[Any, ...]]) -> None:
    """Print the result of the flights Dag."""
    from rich.table import Table

    table = Table(title="Flights from New York, 2013: delays by airline")
    table.add_column("airline")
    for title in ("flights", "departure delay (min)", "arrival delay (min)", "> 15 min late (%)"):
        table.add_column(title, justify="right")
    for airline, flights, *figures in rows:
        table.add_row(airline, f"{flights:,}", *(f"{figure:.1f}" for figure in figures))
    console.print(table)


def show_results(console: Console, results: list[Result]) -> None:
    """Print the table of Dags run and task instances succeeded."""
    from rich.table import Table

    table = Table(title="Dags run")
    table.add_column("Dag")
    table.add_column("state")
    table.add_column("tasks succeeded", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("verified")
    for result in results:
        colour = "green" if result.ok else "red"
        table.add_row(
            result.dag_id,
            f"[{colour}]{result.state}[/{colour}]",
            f"{result.succeeded}/{result.total}",
            f"{result.seconds:.1f}",
            result.note,
        )
    console.print(table)


def run_examples(airflow: Airflow, client: Client) -> list[Result]:
    """Run every example Dag, verify what it left, and print the result."""
    runs = {dag_id: trigger(client, dag_id) for dag_id in example_dags()}
    results = follow(airflow, client, runs)
    for result in results:
        if not result.ok:
            continue
        if result.dag_id == "flights_etl":
            rows = flights_result(airflow.home)
            flights = sum(row[1] for row in rows)
            result.note = f"{flights:,} of {FLIGHTS:,} flights, {len(rows)} airlines in DuckDB"
            result.verified = flights == FLIGHTS
            show_flights(airflow.console, rows)
        elif result.dag_id == "killed_task":
            lines = lines_of_killed_attempt(client, runs[result.dag_id])
            result.note = f"{lines} of {KILLED_LINES} lines of the killed attempt in the UI"
            result.verified = lines == KILLED_LINES
    return results


def bring_up(airflow: Airflow, client: Client) -> None:
    """Start everything and wait until it is healthy and the Dags are parsed, showing progress.

    Raises:
        DemoError: Something didn't start.
    """
    console = airflow.console
    begin = time.monotonic()

    def step(title: str) -> Any:
        return console.status(f"{title} ...", spinner="dots")

    def done(title: str) -> None:
        console.print(f"  [green]✓[/green] {title} [dim]{time.monotonic() - begin:.1f} s[/dim]")

    with step("preparing the database"):
        airflow.prepare()
    done(f"database in {airflow.home}")
    with step("starting " + ", ".join(COMPONENTS)):
        for name in COMPONENTS:
            airflow.start(name)
        airflow.wait_until_healthy(client)
    done(", ".join(COMPONENTS) + " healthy")
    with step("parsing Dags"):
        authenticated(client, airflow.password)
        wait_for_dags(airflow, client, example_dags())
    done(f"Dags parsed: {', '.join(example_dags())}")


def serve(airflow: Airflow) -> None:
    """Say where the UI is and stay until a signal, watching the components.

    Raises:
        DemoError: A component ended.
    """
    password = airflow.password if airflow.new_password else f"as printed at first ({airflow.home}/passwords.json)"
    airflow.console.print(
        f"\nAirflow is at [link={airflow.url}]{airflow.url}[/link]   user [bold]admin[/bold]   "
        f"password [bold]{password}[/bold]\nStop with Ctrl-C.",
        highlight=False,
    )
    while True:
        airflow.check_alive()
        time.sleep(POLL_SECONDS)


def demo(args: argparse.Namespace, console: Console) -> int:
    """Run the demo; see the module's docstring.

    Returns:
        The exit code.
    """
    import httpx

    home = args.home.expanduser().resolve()
    with locked_home(home):
        airflow = Airflow(home, choose_port(args.port), console, launchers=launchers())
        results: list[Result] = []
        try:
            # trust_env: a proxy of this machine must not see the password.
            with httpx.Client(base_url=airflow.url, timeout=30, trust_env=False) as client:
                bring_up(airflow, client)
                results = run_examples(airflow, client)
                show_results(console, results)
                if not args.check:
                    serve(airflow)
        finally:
            ignore_signals()
            begin = time.monotonic()
            with console.status("stopping ..."):
                airflow.stop()
            console.print(f"stopped in {time.monotonic() - begin:.1f} s")
        return 0 if results and all(result.ok for result in results) else 1


def launchers() -> list[psutil.Process]:
    """The shell and the hatch that started us, if they did.

    A signal sent to hatch alone ends it and not us; nobody would be left to stop the demo.
    """
    import psutil

    parents = psutil.Process().parents()[:2]
    try:
        return parents if any(Path(word).name == "sh" for word in parents[0].cmdline()[:1]) else []
    except (IndexError, psutil.Error):
        return []


def raise_stopped(_signal: int, _frame: object) -> NoReturn:
    """Signal handler: unwinds to the clean stop."""
    raise Stopped


def ignore_signals() -> None:
    """From here on a second Ctrl-C must not interrupt the clean stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def adopt_orphans() -> None:
    """Become the parent of grandchildren whose parent dies, so that none outlives us (Linux, prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main(argv: list[str] | None = None) -> int:
    """Command line; exit code 2 for an unsupported Python or Airflow, 1 for every other failure."""
    problem = unsupported()
    if problem:
        sys.stderr.write(f"demo: {problem}\n")
        return 2
    from rich.console import Console

    parser = argparse.ArgumentParser(description="Run a Tradewind-tuned Airflow with example Dags on real data.")
    parser.add_argument("--check", action="store_true", help="run, verify, print a table, stop; exit 0 or 1")
    parser.add_argument("--port", type=int, default=8080, help="port of the UI on 127.0.0.1; 0: any free one")
    parser.add_argument("--home", type=Path, default=ROOT / ".airflow", help="where everything is written")
    args = parser.parse_args(argv)
    # A table needs its width also where the output is a file or a pipe.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, raise_stopped)
    adopt_orphans()
    try:
        return demo(args, console)
    except DemoError as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    except Stopped:
        return 1 if args.check else 0


if __name__ == "__main__":
    sys.exit(main())
