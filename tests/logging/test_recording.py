# SPDX-License-Identifier: Apache-2.0
"""Logs of real tasks: a real scheduler with real supervisors, S3, and a supervisor that is killed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from support.airflow_server import AirflowServer, wait_for
from support.object_storage import S3Server, running_s3

from tradewind.logging.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

DAGS = """
import os
import signal
import time
from datetime import timedelta

from airflow.sdk import dag, task


@dag(schedule=None)
def recorded():
    @task(retries=1, retry_delay=timedelta(seconds=1))
    def killed(ti=None):
        for number in range(80):
            print(f"line {number}", flush=True)
            time.sleep(0.02)
        if ti.try_number == 1:
            time.sleep(4)
            # The supervisor: nobody is left to upload anything.
            os.kill(os.getppid(), signal.SIGKILL)

    killed()


recorded()
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        server.create_bucket("task-logs")
        yield server


@pytest.fixture(scope="module")
def remote(s3) -> Store:
    options = {"key": s3.key, "secret": s3.secret, "endpoint_url": s3.url, "client_kwargs": {"region_name": s3.region}}
    return open_store("s3://task-logs/airflow", options)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory, s3, migrated_sqlite) -> Iterator[AirflowServer]:
    home = tmp_path_factory.mktemp("airflow")
    dags = home / "dags"
    dags.mkdir()
    (dags / "recorded.py").write_text(DAGS)
    env = {
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": "s3://task-logs/airflow",
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "logs",
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "tradewind.logging.settings.LOGGING_CONFIG",
        "AIRFLOW__TRADEWIND_LOGGING__FIRST_FLUSH_SECONDS": "0.5",
        "AIRFLOW__TRADEWIND_LOGGING__FLUSH_INTERVAL_SECONDS": "1",
        "AIRFLOW_CONN_LOGS": s3.connection_uri(),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    }
    with AirflowServer(home, dags_folder=dags, database=migrated_sqlite, env=env) as server:
        server.start_api_server()
        server.start("scheduler", "--skip-serve-logs")
        server.start("dag-processor")
        yield server


@pytest.fixture(scope="module")
def run_id(airflow) -> str:
    """A run whose first attempt's supervisor was killed, and whose second one succeeded."""
    return airflow.run_dag("recorded", timeout_seconds=240)


def log_path(run_id: str, attempt: int) -> str:
    return f"dag_id=recorded/run_id={run_id}/task_id=killed/attempt={attempt}.log"


def printed(text: str) -> list[str]:
    return [f"line {number}" for number in range(80) if f'"event":"line {number}"' in text.replace('": "', '":"')]


def test_the_killed_supervisors_lines_are_in_the_bucket(airflow, remote, run_id):
    text = remote.read(log_path(run_id, 1)).decode()
    assert len(printed(text)) == 80


def test_the_finished_log_is_one_object_and_the_local_file_is_empty(airflow, remote, run_id):
    log = log_path(run_id, 2)
    local = airflow.home / "logs" / log
    # The supervisor reports the task's state first and finishes the log then.
    wait_for(lambda: local.stat().st_size == 0, what="the local file to be given up", timeout_seconds=30)
    assert list(remote.list(log)) == [log]
    assert len(printed(remote.read(log).decode())) == 80


@pytest.mark.parametrize("attempt", [1, 2])
def test_the_ui_shows_every_line_of_each_attempt_once_and_says_where_they_come_from(airflow, run_id, attempt):
    client = airflow.client("admin")
    path = f"api/v2/dags/recorded/dagRuns/{run_id}/taskInstances/killed/logs/{attempt}"
    body = client.get(path, params={"full_content": True}).raise_for_status().json()
    events = [message["event"] for message in body["content"]]
    assert [event for event in events if event.startswith("line ")] == [f"line {number}" for number in range(80)]
    header = events[: events.index("::endgroup::")]
    assert any("s3://task-logs/airflow" in line for line in header), header


def test_airflows_own_reader_reads_what_we_wrote_line_for_line(airflow, remote, run_id, s3, monkeypatch):
    from airflow.providers.amazon.aws.log.s3_task_handler import S3RemoteLogIO

    monkeypatch.setenv("AIRFLOW_CONN_LOGS", s3.connection_uri())
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID", "logs")
    reader = S3RemoteLogIO(
        remote_base="s3://task-logs/airflow", base_log_folder=airflow.home / "logs", delete_local_copy=False
    )
    log = log_path(run_id, 2)
    local = airflow.home / "logs" / log
    wait_for(lambda: local.stat().st_size == 0, what="the local file to be given up", timeout_seconds=30)
    _, messages = reader.read(log, None)
    assert "".join(messages or []) == remote.read(log).decode()


def test_the_sweeper_brings_the_rest_and_then_has_nothing_to_do(airflow, remote, run_id):
    import json

    log = log_path(run_id, 1)
    local = airflow.home / "logs" / log
    whole = local.read_bytes()
    assert whole
    actions = json.loads(airflow.run("tradewind-logs", "sweep", "--min-age-seconds", "0", "--output", "json"))
    assert [action["log"] for action in actions if action["outcome"] != "failed"] == [log]
    assert remote.read(log) == whole
    assert list(remote.list(log)) == [log]
    assert not local.exists() or local.stat().st_size == 0
    assert json.loads(airflow.run("tradewind-logs", "sweep", "--min-age-seconds", "0", "--output", "json")) == []


def test_a_line_is_in_the_bucket_before_its_task_ends(airflow, remote, run_id):
    client = airflow.client("admin")
    answer = client.post("api/v2/dags/recorded/dagRuns", json={"logical_date": None}).raise_for_status()
    log = log_path(answer.json()["dag_run_id"], 1)
    wait_for(lambda: remote.list(log), what="the first object", timeout_seconds=60)
    begin = time.monotonic()
    wait_for(lambda: "line 79" in remote.read(log).decode(), what="the last line", timeout_seconds=30)
    assert time.monotonic() - begin < 30
