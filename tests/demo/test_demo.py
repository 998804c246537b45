# SPDX-License-Identifier: Apache-2.0
"""The demo as a person meets it: a process, its output, its exit code, what it leaves."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo.py"


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "TRADEWIND_"))}


def demo(*args: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DEMO, *args],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Watched:
    """A process whose descendants are remembered, so that none can outlive it unseen."""

    def __init__(self, command: list[str | Path], output: Path) -> None:
        self.output = output
        with output.open("wb") as file:
            self.popen = subprocess.Popen(
                command, env=environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )
        self.seen: set[psutil.Process] = set()

    def look(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self.seen.update(psutil.Process(self.popen.pid).children(recursive=True))

    def wait_for(self, text: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.output.read_text():
            self.look()
            assert self.popen.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.2)
        self.look()

    def wait(self, seconds: float) -> int:
        deadline = time.monotonic() + seconds
        while self.popen.poll() is None:
            self.look()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.2)
        return self.popen.returncode

    def left(self) -> list[psutil.Process]:
        return [p for p in self.seen if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            self.popen.wait(30)
        for process in self.left():
            process.kill()


@pytest.fixture
def watched(tmp_path):
    started: list[Watched] = []

    def start(*command: str | Path) -> Watched:
        started.append(Watched([sys.executable, *command], tmp_path / f"output-{len(started)}.txt"))
        return started[-1]

    yield start
    for process in started:
        process.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def downgraded(database: Path, home: Path) -> None:
    """Take a metadata database back to what Airflow 3.1 made."""
    home.mkdir()
    shutil.copy(database, home / "airflow.db")
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "downgrade", "--to-version", "3.1.0", "--yes"],
        env={
            **environment(),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        },
        check=True,
        capture_output=True,
        timeout=120,
    )


def test_check_upgrades_an_older_database_runs_the_dags_verifies_and_leaves_no_process(
    tmp_path, watched, migrated_sqlite
):
    home = tmp_path / "home"
    downgraded(migrated_sqlite, home)
    process = watched(DEMO, "--check", "--port", "0", "--home", home)
    code, output = process.wait(500), process.output.read_text()
    assert code == 0, output
    assert "database of an older Airflow upgraded" in output
    assert "336,776 of 336,776 flights" in output
    assert "ExpressJet Airlines Inc." in output
    assert "5/5" in output
    assert "200 of 200 lines of the killed attempt" in output
    assert len(process.seen) > 4
    assert process.left() == []
    assert (home / "data" / "flights" / "delays_by_airline_and_hour.parquet").stat().st_size > 0
    # The runtime's first commands must not have frozen upstream's defaults.
    live = [line for line in (home / "airflow.cfg").read_text().splitlines() if line[:1].isalpha()]
    assert len(live) == 3


def test_ctrl_c_stops_everything_within_ten_seconds_and_the_password_is_shown_once(tmp_path, watched):
    home, port = tmp_path / "home", free_port()
    process = watched(DEMO, "--port", str(port), "--home", home)
    process.wait_for("Stop with Ctrl-C", 400)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        assert "tradewind-footer" in client.get("/").text
        assert client.get("/api/v2/dags").status_code == 401
    password = json.loads((home / "passwords.json").read_text())["admin"]
    assert process.output.read_text().count(password) == 1
    assert (home / "passwords.json").stat().st_mode & 0o077 == 0
    another = demo("--port", "0", "--home", home)
    assert another.returncode == 1
    assert f"another demo runs in {home} (process {process.popen.pid})" in another.stderr
    begin = time.monotonic()
    process.popen.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert time.monotonic() - begin < 10
    assert process.left() == []


def test_the_demo_stops_when_what_launched_it_is_ended(tmp_path, watched):
    # As hatch does it: a shell between the launcher and us, and a signal that reaches the launcher only.
    command = f"{sys.executable} {DEMO} --port 0 --home {tmp_path / 'home'}; true"
    launcher = watched("-c", f"import subprocess; subprocess.run({command!r}, shell=True)")
    launcher.wait_for("database in", 120)
    time.sleep(2)
    launcher.look()
    assert len(launcher.seen) >= 5
    launcher.popen.terminate()
    launcher.wait(10)
    deadline = time.monotonic() + 12
    while launcher.left() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert launcher.left() == []


def test_a_taken_port_is_named_with_the_setting_to_change(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = demo("--check", "--port", str(port), "--home", tmp_path)
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr
    assert "AIRFLOW__API__PORT" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_an_impossible_port_is_refused(tmp_path, port):
    done = demo("--check", f"--port={port}", "--home", tmp_path)
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 can't be used" in done.stderr


def test_a_home_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = demo("--check", "--port", "0", "--home", tmp_path / "file" / "home")
    assert done.returncode == 1
    assert "can't be written (Not a directory): choose another folder with --home" in done.stderr


def test_a_database_that_this_airflow_cannot_migrate_is_named_with_its_revision(tmp_path):
    connection = sqlite3.connect(tmp_path / "airflow.db")
    with connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO alembic_version VALUES ('0123456789ab')")
    connection.close()
    done = demo("--check", "--port", "0", "--home", tmp_path)
    assert done.returncode == 1
    assert "is at revision 0123456789ab" in done.stderr
    assert "--home" in done.stderr


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "airflow.db").write_text("this is no database, and long enough to be read as a header" * 20)
    done = demo("--check", "--port", "0", "--home", tmp_path)
    assert done.returncode == 1
    assert "airflow.db is no SQLite database" in done.stderr


def test_an_unsupported_python_is_refused_in_one_line():
    code = (
        "import sys; sys.version_info = sys.version_info.__class__ and (3, 9, 1, 'final', 0); "
        f"import runpy; sys.argv = ['demo.py', '--check']; runpy.run_path({str(DEMO)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == "demo: Python 3.9 is not supported: use 3.10, 3.11, 3.12 or 3.13"


def test_an_unsupported_airflow_is_refused_in_one_line(tmp_path):
    metadata = tmp_path / "apache_airflow-3.2.1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: apache-airflow\nVersion: 3.2.1\n")
    done = subprocess.run(
        [sys.executable, DEMO, "--check"],
        env={**environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "demo: Airflow 3.2.1 is not supported: use 3.3.x"


def test_every_example_dag_has_the_name_of_its_file_and_parses(airflow_db):
    from airflow.dag_processing.dagbag import DagBag

    folder = ROOT / "examples" / "dags"
    bag = DagBag(dag_folder=folder, bundle_path=folder)
    assert bag.import_errors == {}
    assert sorted(bag.dags) == sorted(path.stem for path in folder.glob("*.py"))
