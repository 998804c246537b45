# SPDX-License-Identifier: Apache-2.0
"""Real Celery workers: prefork children run one task after the other, one is killed, a worker shuts down warmly."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from support.airflow_server import AirflowServer, wait_for
from support.object_storage import S3Server, running_s3

from tradewind.logging import spool
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
def celery():
    @task
    def chatty(number):
        for line in range(60):
            print(f"line {line}", flush=True)

    @task(retries=1, retry_delay=timedelta(seconds=0))
    def killed(ti=None):
        for line in range(60):
            print(f"line {line}", flush=True)
            if ti.try_number == 1 and line == 39:
                time.sleep(5)
        if ti.try_number == 1:
            # Time for the supervisor to write the last lines down, hardly for sending them.
            time.sleep(0.3)
            # The prefork child, which is the supervisor.
            os.kill(os.getppid(), signal.SIGKILL)

    chatty.expand(number=[0, 1, 2, 3]) >> killed()


@dag(schedule=None)
def slow():
    @task
    def talk():
        for line in range(60):
            print(f"line {line}", flush=True)
            time.sleep(0.15)

    talk()


celery()
slow()
"""
LINES = [f"line {number}" for number in range(60)]


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
def airflow(tmp_path_factory, s3, postgres, valkey) -> Iterator[AirflowServer]:
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags" / "celery_dags.py").write_text(DAGS)
    env = {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url(postgres.create_database()),
        "AIRFLOW__CELERY__BROKER_URL": f"{valkey}/0",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"{valkey}/1",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": "s3://task-logs/airflow",
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "logs",
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "tradewind.logging.settings.LOGGING_CONFIG",
        "AIRFLOW__LOGGING__DELETE_LOCAL_LOGS": "True",
        "AIRFLOW_CONN_LOGS": s3.connection_uri(),
        # Nothing but a worker's own start may sweep.
        "AIRFLOW__TRADEWIND_LOGGING__FIRST_FLUSH_SECONDS": "0.5",
        "AIRFLOW__TRADEWIND_LOGGING__FLUSH_INTERVAL_SECONDS": "2",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    }
    with AirflowServer(home, env=env) as server:
        server.migrate()
        server.start_api_server()
        server.start("scheduler", "--skip-serve-logs")
        server.start("dag-processor")
        yield server


def start_worker(airflow: AirflowServer) -> int:
    return airflow.start("celery", "worker", "--skip-serve-logs", "--without-mingle", "--without-gossip")


@pytest.fixture(scope="module")
def worker(airflow) -> int:
    """The first worker's process id."""
    return start_worker(airflow)


@pytest.fixture(scope="module")
def run_id(airflow, worker) -> str:
    return airflow.run_dag("celery", timeout_seconds=300)


def events(text: str) -> list[str]:
    found = [json.loads(line)["event"] for line in text.splitlines()]
    return [event for event in found if event.startswith("line ")]


def of(run_id: str, task: str, attempt: int = 1) -> str:
    return f"dag_id=celery/run_id={run_id}/task_id={task}/attempt={attempt}.log"


def journals(airflow: AirflowServer) -> list[str]:
    return [path.name for path in (airflow.home / "logs" / spool.FOLDER).glob("*")]


def test_tasks_that_follow_each_other_in_one_child_have_whole_logs_of_their_own(airflow, remote, run_id):
    for number in range(4):
        log = f"dag_id=celery/run_id={run_id}/task_id=chatty/map_index={number}/attempt=1.log"
        local = airflow.home / "logs" / log
        # Deleted after the upload was confirmed.
        wait_for(lambda file=local: not file.exists(), what=f"the upload of {log}", timeout_seconds=30)
        assert list(remote.list(log)) == [log]
        assert events(remote.read(log).decode()) == LINES


def test_a_killed_childs_lines_are_in_the_bucket_but_for_the_last_moment(airflow, remote, run_id):
    (stored,) = remote.list(of(run_id, "killed"))
    found = events(remote.read(stored).decode())
    assert 40 <= len(found) <= 60
    assert found == LINES[: len(found)]
    second = airflow.home / "logs" / of(run_id, "killed", 2)
    wait_for(lambda: not second.exists(), what="the second attempt's upload", timeout_seconds=30)
    assert events(remote.read(of(run_id, "killed", 2)).decode()) == LINES


def test_a_worker_that_starts_brings_what_the_killed_one_left(airflow, remote, worker, run_id):
    local = airflow.home / "logs" / of(run_id, "killed")
    whole = local.read_bytes()
    assert events(whole.decode()) == LINES
    # The second attempt's state is reported before its log is finished.
    wait_for(lambda: len(journals(airflow)) == 1, what="the killed child's journal alone", timeout_seconds=30)
    os.kill(worker, signal.SIGTERM)
    wait_for(lambda: not psutil.pid_exists(worker) or _zombie(worker), what="the worker's end", timeout_seconds=60)
    start_worker(airflow)
    log = of(run_id, "killed")
    wait_for(lambda: remote.list(log).get(log) == len(whole), what="the sweep", timeout_seconds=120)
    assert remote.read(log) == whole
    wait_for(lambda: not journals(airflow), what="the journal's end", timeout_seconds=30)
    path = f"api/v2/dags/celery/dagRuns/{run_id}/taskInstances/killed/logs/1"
    body = airflow.client("admin").get(path, params={"full_content": True}).raise_for_status().json()
    assert [m["event"] for m in body["content"] if m["event"].startswith("line ")] == LINES


def test_a_warm_shutdown_ends_the_task_and_its_log_is_whole(airflow, remote, run_id):
    # The worker that the test before started is still there.
    pid = airflow.pids("celery")[-1]
    client = airflow.client("admin")
    client.patch("api/v2/dags/slow", json={"is_paused": False}).raise_for_status()
    answer = client.post("api/v2/dags/slow/dagRuns", json={"logical_date": None}).raise_for_status()
    log = f"dag_id=slow/run_id={answer.json()['dag_run_id']}/task_id=talk/attempt=1.log"
    wait_for(lambda: remote.list(log), what="the first lines", timeout_seconds=120)
    begin = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: _zombie(pid), what="the worker's end", timeout_seconds=120)
    assert time.monotonic() - begin < 120
    assert list(remote.list(log)) == [log]
    assert events(remote.read(log).decode()) == LINES
    assert journals(airflow) == []


def _zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
