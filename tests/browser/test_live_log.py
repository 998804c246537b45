# SPDX-License-Identifier: Apache-2.0
"""The log of a running task in Chromium, where the api-server reaches nothing of the worker but the bucket."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from support.airflow_server import AirflowServer, free_port, wait_for
from support.browser import chromium
from support.object_storage import running_s3

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

DAG = """
import time
from pathlib import Path

from airflow.sdk import dag, task

STOP = Path(__file__).with_name("stop")


@dag(schedule=None)
def ticking():
    @task
    def tick():
        number = 0
        while not STOP.exists():
            print(f"tick {number}.", flush=True)
            number += 1
            time.sleep(1)
        print("the last line", flush=True)

    tick()


ticking()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "dags").mkdir()
    (folder / "dags" / "ticking.py").write_text(DAG, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def airflow(home: Path, migrated_sqlite: Path) -> Iterator[AirflowServer]:
    with running_s3() as s3:
        s3.create_bucket("task-logs")
        common = {
            "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
            "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": "s3://task-logs/airflow",
            "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "logs",
            "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "tradewind.logging.settings.LOGGING_CONFIG",
            "AIRFLOW__TRADEWIND_LOGGING__FLUSH_INTERVAL_SECONDS": "1",
            "AIRFLOW_CONN_LOGS": s3.connection_uri(),
            # Nobody listens there: a reader that asks a worker would say so.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        }
        with AirflowServer(home, database=migrated_sqlite, env=common) as server:
            server.start_api_server()
            elsewhere = {
                "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{server.url}/execution/",
                "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "worker"),
            }
            with AirflowServer(home, env={**common, **elsewhere}) as worker:
                worker.start("scheduler", "--skip-serve-logs")
                worker.start("dag-processor")
                yield server


@pytest.fixture(scope="module")
def page(airflow: AirflowServer) -> Iterator[Page]:
    with chromium() as browser:
        # Tall: the page draws only the lines that are in sight.
        context = browser.new_context(viewport={"width": 1280, "height": 2400})
        context.add_cookies([{"name": "_token", "value": airflow.token("admin"), "url": airflow.url}])
        yield context.new_page()


def ticks(page: Page) -> list[int]:
    return [int(number) for number in re.findall(r"tick (\d+)\.", page.inner_text("body"))]


def test_the_page_follows_a_running_task_and_shows_each_line_once(airflow: AirflowServer, page: Page, home: Path):
    client = airflow.client("admin")
    wait_for(lambda: client.get("api/v2/dags/ticking").is_success, what="the Dag", timeout_seconds=120)
    client.patch("api/v2/dags/ticking", json={"is_paused": False}).raise_for_status()
    answer = client.post("api/v2/dags/ticking/dagRuns", json={"logical_date": None}).raise_for_status()
    run = answer.json()["dag_run_id"]
    instance = f"api/v2/dags/ticking/dagRuns/{run}/taskInstances/tick"
    wait_for(lambda: client.get(instance).json()["state"] == "running", what="the task", timeout_seconds=120)

    page.goto(f"{airflow.url}/dags/ticking/runs/{run}/tasks/tick", wait_until="domcontentloaded")
    wait_for(lambda: len(ticks(page)) >= 3, what="the first lines", timeout_seconds=90)
    # Without a reload.
    seen = ticks(page)
    wait_for(lambda: ticks(page)[-1:] > [seen[-1] + 4], what="later lines", timeout_seconds=90)
    shown = ticks(page)
    assert shown == list(range(len(shown)))
    assert client.get(instance).json()["state"] == "running"

    (home / "dags" / "stop").touch()
    page.get_by_text("the last line").first.wait_for(timeout=90_000)
    wait_for(lambda: client.get(instance).json()["state"] == "success", what="the end", timeout_seconds=60)
    path = f"{instance.replace('taskInstances/tick', 'taskInstances/tick/logs/1')}"
    events = [m["event"] for m in client.get(path, params={"full_content": True}).raise_for_status().json()["content"]]
    header = events[: events.index("::endgroup::")]
    assert any("s3://task-logs/airflow" in line for line in header), header
    assert not [line for line in header if "log server" in line or "served logs" in line]
    written = [int(number) for number in re.findall(r"tick (\d+)\.", "\n".join(events))]
    assert written == list(range(len(written)))
    assert len(written) >= len(shown)


def test_a_written_line_is_on_the_page_within_a_flush_and_a_refresh(airflow: AirflowServer, page: Page, home: Path):
    (home / "dags" / "stop").unlink(missing_ok=True)
    client = airflow.client("admin")
    answer = client.post("api/v2/dags/ticking/dagRuns", json={"logical_date": None}).raise_for_status()
    run = answer.json()["dag_run_id"]
    page.goto(f"{airflow.url}/dags/ticking/runs/{run}/tasks/tick", wait_until="domcontentloaded")
    wait_for(lambda: ticks(page), what="a line", timeout_seconds=120)
    local = home / "worker" / f"dag_id=ticking/run_id={run}/task_id=tick/attempt=1.log"
    begin = time.monotonic()
    last = max(int(number) for number in re.findall(r"tick (\d+)\.", local.read_text(encoding="utf-8")))
    wait_for(lambda: last in ticks(page), what=f"line {last}", timeout_seconds=60)
    # Flush 1 s, refresh 3 s; a busy machine takes longer.
    assert time.monotonic() - begin < 30
    (home / "dags" / "stop").touch()
