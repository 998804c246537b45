# SPDX-License-Identifier: Apache-2.0
"""A process that lives for one task and takes its disk with it: it ends, is evicted, or is killed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.airflow_server import AirflowServer, wait_for
from support.object_storage import S3Server, running_s3

from tradewind.logging.config import LogSettings
from tradewind.logging.reader import RemoteReader
from tradewind.logging.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

DAGS = """
import time

from airflow.sdk import dag, task


@dag(schedule=None)
def pods():
    @task
    def quick():
        for line in range(60):
            print(f"line {line}", flush=True)

    @task
    def evicted():
        for line in range(1200):
            print(f"line {line}", flush=True)
            time.sleep(0.1)

    @task
    def killed():
        for line in range(1200):
            print(f"line {line}", flush=True)
            time.sleep(0.1)

    quick()
    evicted()
    killed()


pods()
"""
FLUSH_SECONDS = 1.0


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
    (home / "dags").mkdir()
    (home / "dags" / "pods.py").write_text(DAGS)
    env = {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "POD_FOLDER": str(home / "pods"),
        "AIRFLOW__CORE__EXECUTOR": "support.pod_executor.PodExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": "s3://task-logs/airflow",
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "logs",
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "tradewind.logging.settings.LOGGING_CONFIG",
        "AIRFLOW__TRADEWIND_LOGGING__FIRST_FLUSH_SECONDS": "0.5",
        "AIRFLOW__TRADEWIND_LOGGING__FLUSH_INTERVAL_SECONDS": str(FLUSH_SECONDS),
        "AIRFLOW_CONN_LOGS": s3.connection_uri(),
    }
    with AirflowServer(home, database=migrated_sqlite, env=env) as server:
        server.start_api_server()
        server.start("scheduler", "--skip-serve-logs")
        server.start("dag-processor")
        yield server


@pytest.fixture(scope="module")
def run_id(airflow) -> str:
    client = airflow.client("admin")
    wait_for(lambda: client.get("api/v2/dags/pods").is_success, what="the Dag", timeout_seconds=120)
    client.patch("api/v2/dags/pods", json={"is_paused": False}).raise_for_status()
    answer = client.post("api/v2/dags/pods/dagRuns", json={"logical_date": None}).raise_for_status()
    found: str = answer.json()["dag_run_id"]
    return found


def lines(text: str) -> list[int]:
    found = [json.loads(line)["event"] for line in text.splitlines()]
    return [int(event.split()[1]) for event in found if event.startswith("line ")]


def stored(remote: Store, log: str, tmp_path: Path) -> list[int]:
    reader = RemoteReader(remote, LogSettings(remote_base="s3://task-logs/airflow", local_base=tmp_path))
    return lines("\n".join(reader.read(log)[1]))


class Pod:
    """A pod that writes its lines."""

    def __init__(self, airflow: AirflowServer, remote: Store, run_id: str, task: str) -> None:
        pods = airflow.home / "pods"
        self.log = f"dag_id=pods/run_id={run_id}/task_id={task}/attempt=1.log"
        wait_for(lambda: remote.list(self.log), what="the pod's first lines", timeout_seconds=120)
        self.pid = int((pods / f"pods.{task}.1.pid").read_text())
        self.disk, self.lost = (pods / f"pods.{task}.1.{name}" for name in ("disk", "lost"))

    def kill(self) -> list[int]:
        """End it at once; returns the lines that were on its disk."""
        os.kill(self.pid, signal.SIGKILL)
        wait_for(self.lost.exists, what="the pod's end", timeout_seconds=60)
        return lines((self.lost / self.log).read_text())


def test_a_pod_that_ends_leaves_one_whole_object(airflow, remote, run_id):
    lost = airflow.home / "pods" / "pods.quick.1.lost"
    wait_for(lost.exists, what="the pod's end", timeout_seconds=120)
    log = f"dag_id=pods/run_id={run_id}/task_id=quick/attempt=1.log"
    assert list(remote.list(log)) == [log]
    assert lines(remote.read(log).decode()) == list(range(60))
    assert list((lost / ".tradewind" / "sessions").glob("*")) == []


def test_an_evicted_pod_is_recorded_until_its_grace_period_is_over(airflow, remote, run_id, tmp_path):
    pod = Pod(airflow, remote, run_id, "evicted")
    # Airflow hands it on to the task, which may take the whole grace period.
    os.kill(pod.pid, signal.SIGTERM)
    before = lines((pod.disk / pod.log).read_text())
    time.sleep(5 * FLUSH_SECONDS)
    pod.kill()
    found = stored(remote, pod.log, tmp_path)
    assert len(found) > len(before) > 0
    assert found == list(range(len(found)))


def test_a_killed_pod_leaves_all_but_its_last_moment(airflow, remote, run_id, tmp_path):
    pod = Pod(airflow, remote, run_id, "killed")
    time.sleep(3)
    written = pod.kill()
    found = stored(remote, pod.log, tmp_path)
    assert found == written[: len(found)]
    # Ten lines a second; one flush interval, one write, and a busy machine.
    assert len(written) - len(found) <= 10 * (FLUSH_SECONDS + 4)
