# SPDX-License-Identifier: Apache-2.0
"""An S3 server that goes away, loses its bucket, or is not there at all, while a log is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.airflow_server import wait_for
from support.object_storage import S3Server, running_s3
from support.recording import LOG, Recording, s3_options

from tradewind.logging import spool
from tradewind.logging.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        server.create_bucket("task-logs")
        yield server


@pytest.fixture
def store(s3) -> Store:
    return open_store("s3://task-logs/airflow", s3_options(s3))


def holds(store: Store, text: bytes) -> bool:
    return store.list(LOG).get(LOG) == len(text) and store.read(LOG) == text


def test_a_bucket_that_is_deleted_and_made_again_gets_the_whole_log(s3, store, tmp_path):
    recording = Recording(tmp_path / "logs", storage_options=s3_options(s3))
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
    recording = Recording(tmp_path / "logs", storage_options=s3_options(s3))
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
    recording = Recording(tmp_path / "logs", storage_options=s3_options(s3))
    text = recording.write(5)
    assert recording.end() < 6
    assert recording.path.read_bytes() == text
    assert recording.io.shipper.stats.last_error is not None
    assert s3.secret not in recording.io.shipper.stats.last_error
