# SPDX-License-Identifier: Apache-2.0
"""A real triggerer with many triggers that log and then fire: Airflow's S3 logging and ours.

hatch run bench:logging_triggerer [--triggers 2000]

Both record to a moto server that shares the machine. "All scheduled" is the time from the moment the triggers
fire until each task instance goes on: Airflow uploads each log inside the triggerer's loop before it tells so.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support import deferred
from support.airflow_server import AirflowServer
from support.object_storage import S3Server, running_s3

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TRIGGER = """
import asyncio
import logging
import time

from airflow.triggers.base import BaseTrigger, TriggerEvent

log = logging.getLogger(__name__)


class Waiting(BaseTrigger):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def serialize(self):
        return "waiting_triggers.Waiting", {"path": self.path}

    async def run(self):
        import os
        for number in range(5):
            log.info("line %d", number)
        stall = 0.0
        while not os.path.exists(self.path):
            began = time.monotonic()
            await asyncio.sleep(1)
            stall = max(stall, time.monotonic() - began - 1)
        log.info("stalled %.3f", stall)
        yield TriggerEvent(True)
"""
OURS = {"AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "tradewind.logging.settings.LOGGING_CONFIG"}


def measure(base: Path, s3: S3Server, bucket: str, number: int, env: Mapping[str, str]) -> dict[str, float]:
    """Run one triggerer.

    Args:
        base: A folder for everything.
        s3: The storage.
        bucket: Where the logs go.
        number: Triggers.
        env: What makes the difference.

    Returns:
        Memory in bytes, shares of a CPU, and seconds.
    """
    s3.create_bucket(bucket)
    (base / "modules").mkdir(parents=True)
    (base / "modules" / "waiting_triggers.py").write_text(TRIGGER, encoding="utf-8")
    go = base / "go"
    settings = {
        "PYTHONPATH": str(base / "modules"),
        "AIRFLOW__CORE__MAX_MAP_LENGTH": "100000",
        "AIRFLOW__TRIGGERER__CAPACITY": "100000",
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"s3://{bucket}/logs",
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "logs",
        "AIRFLOW_CONN_LOGS": s3.connection_uri(),
        **env,
    }
    with AirflowServer(base / "home", env=settings) as airflow:
        airflow.migrate()
        arguments = ["waiting_triggers.Waiting", str(number), json.dumps({"path": str(go)})]
        subprocess.run(
            [sys.executable, str(Path(deferred.__file__)), *arguments], env=airflow.env, check=True, capture_output=True
        )
        triggerer = psutil.Process(airflow.start("triggerer", "--skip-serve-logs"))
        logs = airflow.home / "logs"
        _until(lambda: sum(1 for path in logs.rglob("*.trigger.*.log") if path.stat().st_size) >= number, 600)
        time.sleep(15)
        before, began = _cpu(triggerer), time.monotonic()
        time.sleep(20)
        idle = (_cpu(triggerer) - before) / (time.monotonic() - began)
        memory = triggerer.memory_info().rss
        go.touch()
        began = time.monotonic()
        _until(lambda: not _deferred(airflow.database), 1800)
        scheduled = time.monotonic() - began
        _until(lambda: _stored(s3, bucket) >= number, 600)
        stored = time.monotonic() - began
        peak = triggerer.memory_info().rss
    return {"memory": memory, "peak": peak, "idle": idle, "scheduled": scheduled, "stored": stored}


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _until(probe: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds:g} s")
        time.sleep(0.5)


def _deferred(database: Path) -> int:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
        (count,) = connection.execute("SELECT count(*) FROM task_instance WHERE state = 'deferred'").fetchone()
    return int(count)


def _stored(s3: S3Server, bucket: str) -> int:
    pages = s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return sum(1 for page in pages for entry in page.get("Contents", []) if ".trigger." in entry["Key"])


def main() -> None:
    """Measure both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triggers", type=int, default=2000)
    number = parser.parse_args().triggers
    console = Console()
    results = {}
    with tempfile.TemporaryDirectory(prefix="tradewind-bench-") as folder, running_s3() as s3:
        for name, env in (("upstream", {}), ("ours", OURS)):
            with console.status(f"{name}: {number} triggers"):
                results[name] = measure(Path(folder) / name, s3, name, number, env)
    theirs, ours = results["upstream"], results["ours"]
    table = Table(title=f"{number} triggers that log, one triggerer")
    for column in ("figure", "upstream", "ours", "ours to upstream"):
        table.add_column(column)
    rows = (
        ("supervisor's memory while they wait", "memory", 1e6, "MB"),
        ("supervisor's memory at the end", "peak", 1e6, "MB"),
        ("supervisor's CPU while they wait", "idle", 0.01, "%"),
        ("fired until all are scheduled", "scheduled", 1, "s"),
        ("fired until all logs are stored", "stored", 1, "s"),
    )
    for title, key, unit, suffix in rows:
        one, two = theirs[key] / unit, ours[key] / unit
        ratio = f"{two / one:.2f}x" if one else "-"
        table.add_row(title, f"{one:.1f} {suffix}", f"{two:.1f} {suffix}", ratio)
    console.print(table)


if __name__ == "__main__":
    main()
