# SPDX-License-Identifier: Apache-2.0
"""Airflow's own remote logs read ours and we read theirs, with one and the same configuration.

Both sides are made from Airflow's configuration and connection, as a user has them who switches from one to
the other and back; the storages are real servers. What Airflow reads is compared line for line.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from support.airflow_server import wait_for
from support.object_storage import S3Server, running_s3

from tradewind.logging.remote import TradewindRemoteLogIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What the providers themselves call; as errors these would be swallowed by them, and nothing would be read.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:Blob\.from_string:PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:content_as_text:DeprecationWarning"),
]

LOG = "dag_id=a/run_id=r/task_id=t/attempt=1.log"
OTHERS = ("dag_id=a/run_id=r/task_id=t/attempt=10.log", "dag_id=a/run_id=r/task_id=t/attempt=2.log")


@dataclass(frozen=True)
class Deployment:
    """One configuration of Airflow, and the class that upstream serves it with."""

    base: str
    connection: str
    upstream: str
    env: dict[str, str] = field(default_factory=dict)
    """What only upstream's client needs to find the local server."""


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


@pytest.fixture(
    params=[
        "s3",
        pytest.param("gcs", marks=pytest.mark.cloud),
        pytest.param("azure", marks=pytest.mark.azurite),
    ]
)
def deployment(request) -> Deployment:
    if request.param == "s3":
        server = request.getfixturevalue("s3")
        bucket = f"logs-{secrets.token_hex(4)}"
        server.create_bucket(bucket)
        upstream = "airflow.providers.amazon.aws.log.s3_task_handler.S3RemoteLogIO"
        return Deployment(f"s3://{bucket}/prod", server.connection_uri(), upstream)
    if request.param == "gcs":
        server, bucket = request.getfixturevalue("gcs"), request.getfixturevalue("gcs_bucket")
        upstream = "airflow.providers.google.cloud.log.gcs_task_handler.GCSRemoteLogIO"
        # Upstream's client of Google knows an emulator only by this name.
        env = {"STORAGE_EMULATOR_HOST": server.url}
        return Deployment(f"gs://{bucket}/prod", server.connection(), upstream, env)
    server, container = request.getfixturevalue("azurite"), request.getfixturevalue("azure_container")
    request.getfixturevalue("monkeypatch").setenv("AIRFLOW__AZURE_REMOTE_LOGGING__REMOTE_WASB_LOG_CONTAINER", container)
    upstream = "airflow.providers.microsoft.azure.log.wasb_task_handler.WasbRemoteLogIO"
    return Deployment("wasb://wasb-prod/tasks", server.connection(), upstream)


class Upstream:
    """Airflow's own remote log, unmodified, in a folder of its own."""

    def __init__(self, deployment: Deployment, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._deployment = deployment
        self._folder = folder
        self._monkeypatch = monkeypatch

    def __enter__(self) -> Any:
        from airflow.sdk.module_loading import import_string

        for name, value in {"AIRFLOW_CONN_LOGS": self._deployment.connection, **self._deployment.env}.items():
            self._monkeypatch.setenv(name, value)
        self._monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(self._folder))
        self._io = import_string(self._deployment.upstream).from_config()
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("AIRFLOW_CONN_LOGS", *self._deployment.env):
            self._monkeypatch.delenv(name)

    def read(self) -> list[str]:
        _, found = self._io.read(LOG, None)
        return "".join(found or []).splitlines()

    def stream(self) -> list[str] | None:
        """What its newer way to read gives, where it has one."""
        if not hasattr(self._io, "stream"):
            return None
        _, streams = self._io.stream(LOG, None)
        return [line.rstrip("\n") for stream in streams for line in stream]

    def upload(self, lines: list[str], log: str = LOG) -> None:
        local = self._folder / log
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_text("".join(f"{line}\n" for line in lines))
        if "gcs" in self._deployment.upstream:
            self._make(f"{self._io.remote_base}/{log}")
        self._io.upload(log, None)
        # It swallows what goes wrong, and empties the file when nothing did.
        assert local.read_text() == ""

    def _make(self, url: str) -> None:
        # Upstream begins a new object only after the words with which the real service says that there is
        # none; the emulator has others.
        from google.cloud.storage import Blob

        blob = Blob.from_uri(url, self._io.client)
        if not blob.exists():
            blob.upload_from_string("")


@pytest.fixture
def upstream(deployment, configured, tmp_path, monkeypatch) -> Upstream:
    return Upstream(deployment, tmp_path / "upstream", monkeypatch)


@pytest.fixture
def configured(deployment, monkeypatch) -> None:
    names = {
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": deployment.base,
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "logs",
        "AIRFLOW__LOGGING__DELETE_LOCAL_LOGS": "False",
        "AIRFLOW__TRADEWIND_LOGGING__FIRST_FLUSH_SECONDS": "0.1",
        "AIRFLOW__TRADEWIND_LOGGING__FLUSH_INTERVAL_SECONDS": "0.2",
        "AIRFLOW__TRADEWIND_LOGGING__PART_BYTES": "65536",
    }
    for name, value in names.items():
        monkeypatch.setenv(name, value)


class Ours:
    """Our remote log as a supervisor has it: the connection is in the environment for a moment only."""

    def __init__(self, deployment: Deployment, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(folder))
        monkeypatch.setenv("AIRFLOW_CONN_LOGS", deployment.connection)
        self.io = TradewindRemoteLogIO.from_config()
        self._processors = self.io.processors
        monkeypatch.delenv("AIRFLOW_CONN_LOGS")
        self.folder = folder
        self._open: dict[str, Any] = {}
        self._seconds = 0

    def write(self, name: str, count: int, log: str = LOG) -> list[str]:
        """Write lines of a session of its own; the name is in each."""
        path = self.folder / log
        path.parent.mkdir(parents=True, exist_ok=True)
        file = self._open[log] = path.open("ab")
        before = path.stat().st_size
        logger = structlog.wrap_logger(
            structlog.BytesLogger(file),
            processors=[*self._processors, lambda _logger, _name, event: json.dumps(event).encode()],
        )
        for number in range(count):
            self._seconds += 1
            stamp = f"2026-01-02T03:{self._seconds // 60:02}:{self._seconds % 60:02}Z"
            event = f"{name} {number} äß ✓ {'x' * 100}"
            logger.info(event, timestamp=stamp, level="info")
        return path.read_bytes()[before:].decode().splitlines()

    def end(self, log: str = LOG) -> None:
        self.io.upload(log)
        self._open.pop(log).close()
        assert (self.folder / log).stat().st_size == 0

    def stored(self) -> dict[str, int]:
        return self.io._open_store().list(LOG)

    def read(self) -> list[str]:
        _, streams = self.io.stream(LOG)
        return [line.rstrip("\n") for stream in streams for line in stream]


@pytest.fixture
def ours(deployment, configured, tmp_path, monkeypatch) -> Ours:
    return Ours(deployment, tmp_path / "ours", monkeypatch)


def test_airflow_reads_a_finished_log(ours, upstream):
    for other in OTHERS:
        ours.write("other", 3, other)
        ours.end(other)
    lines = ours.write("line", 30)
    ours.end()
    assert list(ours.stored()) == [LOG]
    with upstream as airflow:
        assert airflow.read() == lines
        assert airflow.stream() in (None, lines)


def test_airflow_reads_a_log_that_is_still_written_and_has_parts(ours, upstream):
    lines = ours.write("line", 2000)
    size = sum(len(line.encode()) + 1 for line in lines)
    wait_for(lambda: sum(ours.stored().values()) == size, what="all lines in the storage", timeout_seconds=60)
    assert len(ours.stored()) > 3
    with upstream as airflow:
        assert airflow.read() == lines
    ours.end()
    assert ours.stored() == {LOG: size}
    with upstream as airflow:
        assert airflow.read() == lines


def test_airflow_reads_the_sessions_of_a_log_in_order(ours, upstream):
    lines = []
    for name in ("before", "between", "after"):
        lines += ours.write(name, 20)
        ours.end()
    assert len(ours.stored()) == 3
    with upstream as airflow:
        assert airflow.read() == lines
    assert ours.read() == lines


def test_we_read_what_airflow_uploaded_and_appended_to(ours, upstream):
    stamped = [json.dumps({"timestamp": f"2026-01-02T03:04:{n:02}Z", "event": f"line {n} äß ✓"}) for n in range(40)]
    with upstream as airflow:
        for other in OTHERS:
            airflow.upload(["not ours"], other)
        airflow.upload(stamped[:25])
        airflow.upload(stamped[25:])
    assert [line for line in ours.read() if line] == stamped


def test_a_log_that_airflow_began_and_we_went_on_with_has_all_lines_on_both_sides(ours, upstream):
    first = [json.dumps({"timestamp": f"2026-01-01T00:00:{n:02}Z", "event": f"before {n}"}) for n in range(10)]
    with upstream as airflow:
        airflow.upload(first)
    second = ours.write("after", 20)
    ours.end()
    assert ours.read() == first + second
    with upstream as airflow:
        assert airflow.read() == first + second
        # ... and back again.
        third = [json.dumps({"timestamp": "2026-01-01T00:00:30Z", "event": "last"})]
        airflow.upload(third)
        assert sorted(line for line in airflow.read() if line) == sorted(first + second + third)
    assert [line for line in ours.read() if line] == first + third + second
