# SPDX-License-Identifier: Apache-2.0
"""Real Airflow processes on 127.0.0.1 for process-level tests.

One object is one deployment: a home folder, a SQLite metadata database and the processes that the test
starts. Each process gets its own session, so that stopping one reaches whatever it forked and nothing
else on the machine.

    with AirflowServer(tmp_path / "home", dags_folder=dags) as airflow:
        airflow.migrate()
        airflow.start_api_server()
        airflow.start("scheduler")
        airflow.client("admin").get("api/v2/dags")
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import httpx
import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

__all__ = ["AirflowProcessError", "AirflowServer", "free_port", "wait_for"]

START_TIMEOUT_SECONDS = 240.0
"""Generous: importing Airflow takes half a minute on a busy two-core machine."""

STOP_TIMEOUT_SECONDS = 15.0
_LOG_TAIL_CHARACTERS = 4000
# Airflow raises instead of falling back where PYTEST_CURRENT_TEST is set.
_NOT_INHERITED = ("AIRFLOW_", "PYTEST_CURRENT_TEST", "TRADEWIND_")

_T = TypeVar("_T")


class AirflowProcessError(Exception):
    """A process did not do what the test needs; the message holds the end of its output."""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(
    probe: Callable[[], _T | None], *, what: str, timeout_seconds: float, interval_seconds: float = 0.25
) -> _T:
    """Call `probe` until it gives something true, and return that.

    Args:
        probe: Called again and again; an `httpx.TransportError` counts as "not yet".
        what: What is waited for, for the message.
        timeout_seconds: How long to go on.
        interval_seconds: The pause between two calls.

    Raises:
        TimeoutError: Nothing true came in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        with suppress(httpx.TransportError):
            if found := probe():
                return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_seconds:g} s")
        time.sleep(interval_seconds)


@dataclass(frozen=True)
class _Process:
    name: str
    popen: subprocess.Popen[bytes]
    output: Path

    def tail(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL_CHARACTERS:]


class AirflowServer:
    """One Airflow deployment on this machine.

    Args:
        home: AIRFLOW_HOME; made when it does not exist. Two servers may share one home, and with it the
            database, the users and the logs.
        dags_folder: Where the Dag files lie; default `<home>/dags`.
        database: A migrated SQLite file to copy instead of running `migrate()`.
        base_path: The path under which a proxy would publish this server, for example `/team/airflow`.
        users: Names of the users mapped to roles of the simple auth manager. Passwords are random.
        env: More environment variables, which win over everything that this class sets.
    """

    def __init__(
        self,
        home: Path,
        *,
        dags_folder: Path | None = None,
        database: Path | None = None,
        base_path: str = "",
        users: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{base_path}"
        self.users = dict(users or {"admin": "admin", "viewer": "viewer"})
        self._processes: list[_Process] = []
        self._clients: list[httpx.Client] = []

        self.dags_folder = dags_folder or home / "dags"
        self.dags_folder.mkdir(parents=True, exist_ok=True)
        self.database = home / "airflow.db"
        if database is not None and not self.database.exists():
            shutil.copyfile(database, self.database)
        self._passwords_file = home / "passwords.json"
        if not self._passwords_file.exists():
            passwords = {user: secrets.token_urlsafe(16) for user in self.users}
            self._passwords_file.write_text(json.dumps(passwords), encoding="utf-8")
        secret_file = home / "secret"
        if not secret_file.exists():
            secret_file.write_text(secrets.token_hex(32), encoding="utf-8")
        self.env = self._environment(secret_file.read_text(encoding="utf-8")) | dict(env or {})

    def _environment(self, secret: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        users = ",".join(f"{user}:{role}" for user, role in self.users.items())
        return inherited | {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__SECRET_KEY": secret,
            "AIRFLOW__API_AUTH__JWT_SECRET": secret,
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags_folder),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._passwords_file),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": users,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_HOST": "127.0.0.1",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }

    def __enter__(self) -> AirflowServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def password(self, user: str) -> str:
        """The random password of one of `users`."""
        password: str = json.loads(self._passwords_file.read_text(encoding="utf-8"))[user]
        return password

    def run(self, *arguments: str, timeout_seconds: float = START_TIMEOUT_SECONDS) -> str:
        """Run one `airflow` command to its end and return what it printed.

        Raises:
            AirflowProcessError: It ended with another code than 0.
            subprocess.TimeoutExpired: It took longer than `timeout_seconds`.
        """
        ended = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        if ended.returncode:
            output = (ended.stdout + ended.stderr)[-_LOG_TAIL_CHARACTERS:]
            raise AirflowProcessError(f"airflow {' '.join(arguments)} ended with {ended.returncode}:\n{output}")
        return ended.stdout

    def migrate(self) -> None:
        """Create the metadata database."""
        self.run("db", "migrate")

    def start(self, component: str, *arguments: str) -> int:
        """Start `airflow <component>` and return its process id without waiting for it to be ready.

        Args:
            component: For example `scheduler`, `dag-processor`, `triggerer`.
            arguments: What follows it on the command line.
        """
        output = self.home / f"{component}-{self.port}-{len(self._processes)}.out"
        with output.open("wb") as sink:
            popen = subprocess.Popen(
                [sys.executable, "-m", "airflow", component, *arguments],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(_Process(component, popen, output))
        return popen.pid

    def start_api_server(self, *, workers: int = 1, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Start `airflow api-server` and wait until it answers.

        Args:
            workers: Number of worker processes.
            timeout_seconds: How long it may take.

        Raises:
            AirflowProcessError: It ended, or did not answer in time.
        """
        self.start("api-server", "--workers", str(workers))
        process = self._processes[-1]

        def healthy() -> bool | None:
            if process.popen.poll() is not None:
                raise AirflowProcessError(f"api-server ended with {process.popen.returncode}:\n{process.tail()}")
            return httpx.get(f"{self.url}/api/v2/version", timeout=10).is_success or None

        try:
            wait_for(healthy, what=f"api-server at {self.url}", timeout_seconds=timeout_seconds)
        except TimeoutError as error:
            raise AirflowProcessError(f"{error}:\n{process.tail()}") from None

    def output(self, component: str) -> str:
        """Everything that processes of this component printed until now."""
        return "".join(
            p.output.read_text(encoding="utf-8", errors="replace") for p in self._processes if p.name == component
        )

    def pids(self, component: str) -> list[int]:
        """Ids of the processes of this component that were started and not stopped, oldest first."""
        return [process.popen.pid for process in self._processes if process.name == component]

    def client(self, user: str | None = None) -> httpx.Client:
        """An HTTP client of this server, with the user's token as Bearer, or anonymous.

        Relative URLs resolve below the base path: write `api/v2/dags`, without a leading slash.
        """
        client = httpx.Client(base_url=self.url, timeout=30)
        self._clients.append(client)
        if user is not None:
            client.headers["Authorization"] = f"Bearer {self.token(user)}"
        return client

    def token(self, user: str) -> str:
        """A fresh JWT of one of `users`, which also works as the cookie `_token`."""
        body = {"username": user, "password": self.password(user)}
        response = httpx.post(f"{self.url}/auth/token", json=body, timeout=30).raise_for_status()
        token: str = response.json()["access_token"]
        return token

    def run_dag(self, dag_id: str, *, timeout_seconds: float = START_TIMEOUT_SECONDS) -> str:
        """Wait until a Dag is known, trigger it, wait until its run succeeded, and return the run's id.

        Needs a started api-server, scheduler and dag-processor.

        Raises:
            AirflowProcessError: The run failed.
            TimeoutError: It did not end in time.
        """
        client = self.client("admin")
        wait_for(
            lambda: client.get(f"api/v2/dags/{dag_id}").is_success,
            what=f"Dag {dag_id}",
            timeout_seconds=timeout_seconds,
        )
        client.patch(f"api/v2/dags/{dag_id}", json={"is_paused": False}).raise_for_status()
        answer = client.post(f"api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None}).raise_for_status()
        run_id: str = answer.json()["dag_run_id"]

        def state() -> str | None:
            found = client.get(f"api/v2/dags/{dag_id}/dagRuns/{run_id}").json()["state"]
            return found if found in {"success", "failed"} else None

        ended = wait_for(state, what=f"run {run_id} of {dag_id}", timeout_seconds=timeout_seconds)
        if ended != "success":
            raise AirflowProcessError(f"run {run_id} of {dag_id} ended with {ended}")
        return run_id

    def stop(self, *components: str) -> None:
        """End the processes of these components, or all of them, and wait until they are gone."""
        if not components:
            for client in self._clients:
                client.close()
            self._clients.clear()
        ending = [p for p in self._processes if not components or p.name in components]
        self._processes = [p for p in self._processes if p not in ending]
        # A forked task may have left its parent's session, so the family is listed while it is whole.
        family: list[psutil.Process] = []
        for process in ending:
            with suppress(psutil.NoSuchProcess):
                family += psutil.Process(process.popen.pid).children(recursive=True)
            with suppress(ProcessLookupError):
                os.killpg(process.popen.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        for process in ending:
            with suppress(subprocess.TimeoutExpired):
                process.popen.wait(max(0.0, deadline - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(process.popen.pid, signal.SIGKILL)
            process.popen.wait()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()
