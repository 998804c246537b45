# SPDX-License-Identifier: Apache-2.0
"""The demo as a person meets it: a process, its output, its exit code, what it leaves."""

from __future__ import annotations

import os
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


def processes_below(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("AIRFLOW_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_check_runs_the_dags_verifies_the_result_and_leaves_no_process(tmp_path):
    done = demo("--check", "--port", "0", "--home", tmp_path, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "336,776 of 336,776 flights" in done.stdout
    assert "ExpressJet Airlines Inc." in done.stdout
    assert "5/5" in done.stdout
    assert processes_below(tmp_path) == []
    assert (tmp_path / "data" / "flights" / "delays_by_airline_and_hour.parquet").stat().st_size > 0
    # The runtime's first commands must not have frozen upstream's defaults.
    live = [line for line in (tmp_path / "airflow.cfg").read_text().splitlines() if line[:1].isalpha()]
    assert len(live) == 3


def test_ctrl_c_stops_everything_within_ten_seconds_and_the_password_is_shown_once(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    output = tmp_path / "output.txt"
    home = tmp_path / "home"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, DEMO, "--port", str(port), "--home", home],
            env=environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 400
            while "Stop with Ctrl-C" not in output.read_text():
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < deadline, output.read_text()
                time.sleep(0.5)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                assert "tradewind-footer" in client.get("/").text
                assert client.get("/api/v2/dags").status_code == 401
            password = (home / "passwords.json").read_text().split('"')[3]
            assert output.read_text().count(password) == 1
            assert (home / "passwords.json").stat().st_mode & 0o077 == 0
            another = demo("--port", "0", "--home", home)
            assert another.returncode == 1
            assert f"another demo runs in {home} (process {process.pid})" in another.stderr
            begin = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
            assert time.monotonic() - begin < 10
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)
    assert processes_below(home) == []


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


def test_every_example_dag_has_the_name_of_its_file_and_parses(airflow_db):
    from airflow.dag_processing.dagbag import DagBag

    folder = ROOT / "examples" / "dags"
    bag = DagBag(dag_folder=folder, bundle_path=folder)
    assert bag.import_errors == {}
    assert sorted(bag.dags) == sorted(path.stem for path in folder.glob("*.py"))
