# SPDX-License-Identifier: Apache-2.0
"""Odd lines, and settings that can't be used, through real Airflow processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
from support.airflow_server import AirflowServer, wait_for

from tradewind.logging.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

DAGS = r"""
import logging
import os
import sys

from airflow.sdk import dag, task


@dag(schedule=None)
def odd():
    @task
    def lines():
        print("begin")
        print("\x1b[31mred\x1b[0m by print")
        print("nul \x00 by print")
        print("carriage return by print\r\nafter it")
        logging.getLogger("odd").info("\x1b[1mbold\x1b[0m by logging")
        logging.getLogger("odd").info("lone surrogate %s by logging", "\ud800")
        logging.getLogger("odd").info("nul \x00 by logging")
        sys.stdout.flush()
        os.write(1, b"invalid \xff\xfe\xc3( by write\n")
        os.write(1, b"crlf by write\r\n")
        os.write(1, b"nul \x00 by write\n")
        os.write(1, b"\x1b[32mgreen\x1b[0m by write\n")
        print("end", flush=True)

    @task
    def long():
        print("begin", flush=True)
        print("x" * 50_000_000, flush=True)
        print("end", flush=True)

    lines()
    long()


odd()
"""

LOGGED = ["\x1b[1mbold\x1b[0m by logging", "nul \x00 by logging"]
PRINTED = [
    "begin",
    "\x1b[31mred\x1b[0m by print",
    "nul \x00 by print",
    "carriage return by print",
    "after it",
    "crlf by write",
    "nul \x00 by write",
    "\x1b[32mgreen\x1b[0m by write",
    "end",
]


def assert_odd(events: list[str]) -> None:
    """Each line once; what is printed and what is logged reach Airflow's supervisor on two ways."""
    assert [event for event in events if event in PRINTED] == PRINTED
    assert [event for event in events if event in LOGGED] == LOGGED
    assert len([event for event in events if event.startswith("invalid ") and event.endswith("( by write")]) == 1
    assert len([event for event in events if event.startswith("lone surrogate ")]) == 1


@pytest.fixture(scope="module")
def airflow(tmp_path_factory, migrated_sqlite) -> Iterator[AirflowServer]:
    home = tmp_path_factory.mktemp("airflow")
    dags = home / "dags"
    dags.mkdir()
    (dags / "odd.py").write_text(DAGS)
    env = {
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"file://{home}/stored",
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "tradewind.logging.settings.LOGGING_CONFIG",
        "AIRFLOW__TRADEWIND_LOGGING__FIRST_FLUSH_SECONDS": "0.5",
        "AIRFLOW__TRADEWIND_LOGGING__FLUSH_INTERVAL_SECONDS": "1",
    }
    with AirflowServer(home, dags_folder=dags, database=migrated_sqlite, env=env) as server:
        start(server)
        yield server


def start(server: AirflowServer) -> None:
    server.start("dag-processor")
    server.start("scheduler", "--skip-serve-logs")
    server.start_api_server()


@pytest.fixture(scope="module")
def run_id(airflow) -> str:
    return airflow.run_dag("odd")


@pytest.fixture(scope="module")
def remote(airflow) -> Store:
    return open_store(airflow.env["AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER"])


def stored_log(airflow: AirflowServer, remote: Store, run_id: str, task: str) -> bytes:
    log = f"dag_id=odd/run_id={run_id}/task_id={task}/attempt=1.log"
    local = airflow.home / "logs" / log
    wait_for(lambda: local.stat().st_size == 0, what="the local file to be given up", timeout_seconds=60)
    assert list(remote.list(log)) == [log]
    return remote.read(log)


def as_json(airflow: AirflowServer, run_id: str, task: str) -> list[str]:
    path = f"api/v2/dags/odd/dagRuns/{run_id}/taskInstances/{task}/logs/1"
    response = airflow.client("admin").get(path, params={"full_content": True}, timeout=120).raise_for_status()
    return [message["event"] for message in response.json()["content"]]


def as_ndjson(airflow: AirflowServer, run_id: str, task: str) -> list[str]:
    path = f"api/v2/dags/odd/dagRuns/{run_id}/taskInstances/{task}/logs/1"
    accept = {"Accept": "application/x-ndjson"}
    response = airflow.client("admin").get(path, headers=accept, timeout=120).raise_for_status()
    return [json.loads(line)["event"] for line in response.text.split("\n") if line]


@pytest.mark.parametrize("read", [as_json, as_ndjson])
def test_odd_lines_are_shown_each_once_and_in_order(airflow, remote, run_id, read):
    events = read(airflow, run_id, "lines")
    assert_odd(events)


def test_what_is_stored_of_odd_lines_is_what_airflow_wrote_line_for_line(airflow, remote, run_id):
    text = stored_log(airflow, remote, run_id, "lines")
    events = [json.loads(line)["event"] for line in text.splitlines()]
    assert_odd(events)


@pytest.mark.parametrize("read", [as_json, as_ndjson])
def test_a_line_of_50_mb_is_shown_whole(airflow, remote, run_id, read):
    stored_log(airflow, remote, run_id, "long")
    events = read(airflow, run_id, "long")
    printed = [event for event in events if event in {"begin", "end"} or len(event) > 100_000]
    assert "".join(printed) == "begin" + "x" * 50_000_000 + "end"


def test_the_api_server_survives_a_line_of_50_mb_in_bounded_memory(airflow, remote, run_id):
    as_ndjson(airflow, run_id, "long")
    family = [
        process
        for process in psutil.process_iter(["cmdline", "pid"])
        if str(airflow.port) in " ".join(process.info["cmdline"] or []) and "api" in " ".join(process.info["cmdline"])
    ]
    most = max((_peak(process.pid) for process in family), default=0)
    # Seen: 490 MB.
    assert 0 < most < 1 << 30


def _peak(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123
        return next((int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM")), 0)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("AIRFLOW__TRADEWIND_LOGGING__PART_BYTES", "many", "part_bytes='many'"),
        ("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", "s3://bucket/logs", "pip install 'tradewind-logging[s3]'"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_when_a_process_starts(airflow, tmp_path, name, value, expected):
    env = {**airflow.env, name: value}
    if value.startswith("s3"):
        # As in an environment in which s3fs was never installed.
        (tmp_path / "sitecustomize.py").write_text(
            "import importlib.machinery, sys\n"
            "class Missing(importlib.machinery.PathFinder):\n"
            "    @classmethod\n"
            "    def find_spec(cls, name, path=None, target=None):\n"
            "        return None if name == 's3fs' else super().find_spec(name, path, target)\n"
            "sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Missing\n"
        )
        env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), env.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "info"], env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Task logs stay local" in done.stdout + done.stderr
    assert expected in done.stdout + done.stderr


def test_a_task_runs_and_its_log_is_shown_though_the_storage_cannot_be_used(airflow, run_id):
    airflow.stop("scheduler", "dag-processor", "api-server")
    airflow.env["AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER"] = "nonsense://x/logs"
    start(airflow)
    for component in ("scheduler", "dag-processor", "api-server"):
        assert "Task logs stay local" in airflow.output(component)
        assert "unknown scheme 'nonsense'" in airflow.output(component)
    second = airflow.run_dag("odd")
    events = as_ndjson(airflow, second, "lines")
    assert_odd(events)
    assert (airflow.home / "logs" / f"dag_id=odd/run_id={second}/task_id=lines/attempt=1.log").stat().st_size > 0
