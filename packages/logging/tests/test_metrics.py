# SPDX-License-Identifier: Apache-2.0
"""What a real StatsD receiver gets while logs are recorded, through Airflow's own client."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = "dag_id=a/run_id=r/task_id=t/attempt=1.log"

RECORD = f"""
import json, sys, threading, time
from pathlib import Path
import structlog
from tradewind.logging.config import LogSettings
from tradewind.logging.remote import TradewindRemoteLogIO

base = Path(sys.argv[1])
io = TradewindRemoteLogIO(LogSettings(
    remote_base=sys.argv[2], local_base=base / "local", first_flush_seconds=0.1, flush_interval_seconds=0.2,
    upload_timeout_seconds=1,
))
path = base / "local" / "{LOG}"
path.parent.mkdir(parents=True, exist_ok=True)
with path.open("ab") as file:
    logger = structlog.wrap_logger(
        structlog.BytesLogger(file),
        processors=[*io.processors, lambda _logger, _name, event: json.dumps(event).encode()],
    )
    for number in range(5):
        logger.info("a line", number=number)
        time.sleep(0.3)
    io.upload("{LOG}")
while any(thread.name == "tradewind-log-shipper" for thread in threading.enumerate()):
    if io.shipper.stats.failures:
        break
    time.sleep(0.05)
print("stats", json.dumps(vars(io.shipper.stats)))
print("loaded" if "airflow._shared.observability.metrics.statsd_logger" in sys.modules
      or "airflow.sdk._shared.observability.metrics.statsd_logger" in sys.modules else "not loaded")
"""


class Receiver:
    """A StatsD server: a UDP socket on 127.0.0.1."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.2)

    def metrics(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        while True:
            try:
                text = self.socket.recv(65536).decode()
            except TimeoutError:
                return found
            for line in text.splitlines():
                name, _, rest = line.partition(":")
                found.setdefault(name, []).append(float(rest.partition("|")[0]))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.socket.close()


def record(tmp_path, remote: str, env: dict[str, str]) -> tuple[dict[str, float], str]:
    done = subprocess.run(
        [sys.executable, "-c", RECORD, str(tmp_path), remote],
        env={**os.environ, "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(tmp_path / "local"), **env},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    # A warning of the shipper may stand between them.
    lines = done.stdout.splitlines()
    (stats,) = [line.removeprefix("stats ") for line in lines if line.startswith("stats ")]
    return json.loads(stats), next(line for line in lines if line in {"loaded", "not loaded"})


def statsd(receiver: Receiver) -> dict[str, str]:
    return {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(receiver.socket.getsockname()[1]),
        "AIRFLOW__METRICS__STATSD_PREFIX": "airflow",
    }


def test_a_receiver_gets_puts_bytes_and_lag_and_nothing_is_at_risk_at_the_end(tmp_path, receiver):
    stats, _ = record(tmp_path, f"file://{tmp_path}/remote", statsd(receiver))
    metrics = receiver.metrics()
    assert sum(metrics["airflow.tradewind_logging.puts"]) == stats["puts"] > 1
    assert sum(metrics["airflow.tradewind_logging.put_bytes"]) == stats["put_bytes"]
    # Milliseconds: a line waits for the next flush, and not for much longer on a busy machine.
    assert all(0 < value < 30_000 for value in metrics["airflow.tradewind_logging.lag"])
    assert metrics["airflow.tradewind_logging.bytes_at_risk"][-1] == 0
    assert metrics["airflow.tradewind_logging.sessions"][-1] == 0
    assert "airflow.tradewind_logging.put_failures" not in metrics


def test_a_storage_that_refuses_shows_as_failures_and_as_a_session_left_behind(tmp_path, receiver):
    (tmp_path / "remote").write_text("a file where a folder is wanted")
    stats, _ = record(tmp_path, f"file://{tmp_path}/remote", statsd(receiver))
    metrics = receiver.metrics()
    assert sum(metrics["airflow.tradewind_logging.put_failures"]) >= stats["failures"] > 0
    assert metrics["airflow.tradewind_logging.left_behind"] == [1]
    assert metrics["airflow.tradewind_logging.bytes_at_risk"][0] > 0


def test_opentelemetry_gets_the_same(tmp_path):
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            "AIRFLOW__METRICS__OTEL_ON": "True",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
        }
        record(tmp_path, f"file://{tmp_path}/remote", environment)
        server.shutdown()
    requests = [ExportMetricsServiceRequest.FromString(body) for body in received]
    names = {
        metric.name
        for request in requests
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert {f"airflow.tradewind_logging.{name}" for name in ("puts", "put_bytes", "lag", "bytes_at_risk")} <= names


def test_nothing_is_loaded_or_sent_where_metrics_are_off(tmp_path, receiver):
    environment = {**statsd(receiver), "AIRFLOW__METRICS__STATSD_ON": "False"}
    _, loaded = record(tmp_path, f"file://{tmp_path}/remote", environment)
    assert loaded == "not loaded"
    assert receiver.metrics() == {}


def test_a_receiver_that_is_not_there_changes_nothing(tmp_path, receiver):
    environment = statsd(receiver)
    receiver.socket.close()
    began = time.monotonic()
    stats, _ = record(tmp_path, f"file://{tmp_path}/remote", environment)
    assert stats["failures"] == 0
    assert time.monotonic() - began < 60
    receiver.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
