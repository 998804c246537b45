# SPDX-License-Identifier: Apache-2.0
"""A real triggerer that runs many triggers at once: each has its log in the storage, and none holds the others up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import deferred
from support.airflow_server import AirflowServer, wait_for

from tradewind.logging import spool
from tradewind.logging.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIGGERS = """
import asyncio
import logging

from airflow.triggers.base import BaseTrigger, TriggerEvent

log = logging.getLogger(__name__)


class Ticking(BaseTrigger):
    def __init__(self, ticks):
        super().__init__()
        self.ticks = ticks

    def serialize(self):
        return "ticking_triggers.Ticking", {"ticks": self.ticks}

    async def run(self):
        for number in range(self.ticks):
            log.info("tick %d", number)
            await asyncio.sleep(0.5)
        yield TriggerEvent(True)
"""
NUMBER, TICKS = 150, 6


@pytest.fixture
def airflow(tmp_path, migrated_sqlite) -> Iterator[AirflowServer]:
    home = tmp_path / "airflow"
    (home / "modules").mkdir(parents=True)
    (home / "modules" / "ticking_triggers.py").write_text(TRIGGERS)
    env = {
        "PYTHONPATH": str(home / "modules"),
        "AIRFLOW__CORE__MAX_MAP_LENGTH": "5000",
        "AIRFLOW__TRIGGERER__CAPACITY": "5000",
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"file://{tmp_path}/bucket",
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "tradewind.logging.settings.LOGGING_CONFIG",
        "AIRFLOW__TRADEWIND_LOGGING__FLUSH_INTERVAL_SECONDS": "1",
    }
    with AirflowServer(home, database=migrated_sqlite, env=env) as server:
        yield server


def test_each_of_many_triggers_has_its_whole_log_in_the_storage(airflow, tmp_path):
    arguments = ["ticking_triggers.Ticking", str(NUMBER), json.dumps({"ticks": TICKS})]
    command = [sys.executable, str(Path(deferred.__file__)), *arguments]
    subprocess.run(command, env=airflow.env, check=True, capture_output=True, timeout=240)
    airflow.start("triggerer", "--skip-serve-logs")
    store = open_store(f"file://{tmp_path}/bucket")

    def logs() -> dict[str, int]:
        return {entry.key: entry.size for entry in store.walk() if ".trigger." in entry.key}

    wait_for(lambda: len(logs()) >= NUMBER, what="the first lines of each", timeout_seconds=120)
    sessions = airflow.home / "logs" / spool.FOLDER
    wait_for(lambda: not list(sessions.glob("*")), what="the end of each", timeout_seconds=120)

    found = logs()
    assert len(found) == NUMBER
    for key in found:
        events = [json.loads(line)["event"] for line in store.read(key).decode().splitlines()]
        ticks = Counter(event for event in events if event.startswith("tick "))
        assert ticks == {f"tick {number}": 1 for number in range(TICKS)}, key
    # What was sent is not kept, and nothing waits for a sweeper.
    assert list((airflow.home / "logs").rglob("*.done")) == []
