# SPDX-License-Identifier: Apache-2.0
"""An S3 server that goes away, loses its bucket, or is not there at all, while a log is recorded."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
import structlog
from support.airflow_server import wait_for
from support.object_storage import S3Server, running_s3

from tradewind.logging import spool
from tradewind.logging.config import LogSettings
from tradewind.logging.remote import TradewindRemoteLogIO
from tradewind.logging.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOG = "dag_id=a/run_id=r/task_id=t/attempt=1.log"


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        server.create_bucket("task-logs")
        yield server


def options(s3: S3Server) -> dict[str, object]:
    return {
        "key": s3.key,
        "secret": s3.secret,
        "endpoint_url": s3.url,
        "client_kwargs": {"region_name": s3.region},
        "config_kwargs": {"connect_timeout": 1, "retries": {"max_attempts": 1}},
    }


@pytest.fixture
def store(s3) -> Store:
    return open_store("s3://task-logs/airflow", options(s3))


class Recording:
    """A log that is being written and recorded."""

    def __init__(self, s3: S3Server, home: Path) -> None:
        home.mkdir(exist_ok=True)
        self.io = TradewindRemoteLogIO(
            LogSettings(
                remote_base="s3://task-logs/airflow",
                local_base=home,
                first_flush_seconds=0.2,
                flush_interval_seconds=0.3,
                upload_timeout_seconds=2.0,
                storage_options=options(s3),
            )
        )
        self.path = home / LOG
        self.path.parent.mkdir(parents=True)
        self.file = self.path.open("ab")
        self.logger = structlog.wrap_logger(
            structlog.BytesLogger(self.file),
            processors=[*self.io.processors, lambda _logger, _name, event: json.dumps(event).encode()],
        )

    def write(self, lines: int) -> bytes:
        for number in range(lines):
            self.logger.info("a line", number=number)
        return self.path.read_bytes()

    def end(self) -> float:
        begin = time.monotonic()
        self.io.upload(LOG)
        self.file.close()
        return time.monotonic() - begin


def holds(store: Store, text: bytes) -> bool:
    return store.list(LOG).get(LOG) == len(text) and store.read(LOG) == text


def test_a_bucket_that_is_deleted_and_made_again_gets_the_whole_log(s3, store, tmp_path):
    recording = Recording(s3, tmp_path / "logs")
    text = recording.write(20)
    wait_for(lambda: holds(store, text), what="the first lines", timeout_seconds=20)
    client = s3.client()
    client.delete_object(Bucket="task-logs", Key=f"airflow/{LOG}")
    client.delete_bucket(Bucket="task-logs")
    text = recording.write(20)
    wait_for(lambda: recording.io.shipper.stats.failures, what="a refusal", timeout_seconds=20)
    client.create_bucket(Bucket="task-logs")
    recording.end()
    wait_for(lambda: holds(store, text), what="the whole log", timeout_seconds=30)
    wait_for(lambda: recording.path.stat().st_size == 0, what="the local file to be given up", timeout_seconds=10)


def test_a_server_that_is_gone_delays_the_end_by_the_timeout_and_keeps_the_file(s3, store, tmp_path):
    recording = Recording(s3, tmp_path / "logs")
    text = recording.write(20)
    wait_for(lambda: holds(store, text), what="the first lines", timeout_seconds=20)
    s3.stop()
    text = recording.write(20)
    assert recording.end() < 6
    assert recording.path.read_bytes() == text
    assert len(list((tmp_path / "logs" / spool.FOLDER).glob("*.jsonl"))) == 1
    # It comes back without its memory, as another one would.
    s3.start()
    s3.create_bucket("task-logs")
    wait_for(lambda: holds(store, text), what="the whole log", timeout_seconds=60)


def test_a_server_that_was_never_there_keeps_the_file_for_the_sweeper(s3, tmp_path):
    s3.stop()
    recording = Recording(s3, tmp_path / "logs")
    text = recording.write(5)
    assert recording.end() < 6
    assert recording.path.read_bytes() == text
    assert recording.io.shipper.stats.last_error is not None
    assert s3.secret not in recording.io.shipper.stats.last_error
