# SPDX-License-Identifier: Apache-2.0
"""Memory and time of handing a finished log to S3: Airflow's own S3 logging and ours.

Each side runs in a process of its own against the same moto server on 127.0.0.1, with the same file. The
marker's cost for each line is measured beside the cost of Airflow's whole processor chain.

    hatch run bench:logging_upload [--megabytes 1000]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

SIDE = """
import json, resource, sys, time
from pathlib import Path
side, base, log = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
if side == "upstream":
    from airflow.providers.amazon.aws.log.s3_task_handler import S3RemoteLogIO
    io = S3RemoteLogIO(remote_base="s3://bench-logs/upstream", base_log_folder=base, delete_local_copy=False)
    io.hook.get_conn().list_buckets()
else:
    from tradewind.logging.remote import TradewindRemoteLogIO
    from airflow.configuration import conf
    io = TradewindRemoteLogIO.from_config()
    io._open_store().list(log)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = time.monotonic()
io.upload(log, None)
seconds = time.monotonic() - begin
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": round(seconds, 2), "added_mb": round((after - before) / 1024, 1)}))
"""

MARKER = """
import io, json, timeit
from pathlib import Path
import structlog
from tradewind.logging.remote import TradewindRemoteLogIO
from airflow.sdk.log import logging_processors
chain = [p for p in logging_processors(json_output=True)]
marker = TradewindRemoteLogIO.from_config()._notice
class Logger:
    _file = None
logger = Logger()
number = 20000
def whole():
    event = {"event": "x" * 160, "level": "info"}
    for processor in chain:
        event = processor(logger, "info", event)
whole()
chain_ns = min(timeit.repeat(whole, number=2000, repeat=5)) / 2000 * 1e9
marker_ns = min(timeit.repeat(lambda: marker(logger, "info", None), number=number, repeat=5)) / number * 1e9
print(json.dumps({"chain_ns": round(chain_ns), "marker_ns": round(marker_ns)}))
"""


def free_port() -> int:
    """A port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run(code: str, *args: str, env: dict[str, str]) -> dict[str, float]:
    """Run one side in a process of its own; returns the figures that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *args], env=env, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Memory and time of uploading a finished log to S3.")
    parser.add_argument("--megabytes", type=int, default=200, help="size of the log")
    args = parser.parse_args()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            try:
                urlopen(url, timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        with tempfile.TemporaryDirectory() as home:
            figures = compare(Path(home), url, args.megabytes)
    finally:
        server.terminate()
        server.wait()
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return 0


def compare(home: Path, url: str, megabytes: int) -> dict[str, object]:
    """Measure both sides, one after the other."""
    import boto3

    # What moto takes for credentials: anything.
    os.environ |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "any")
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket="bench-logs")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "TRADEWIND_"))}
    env = {
        **kept,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": "s3://bench-logs/ours",
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "aws_default",
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "tradewind.logging.settings.LOGGING_CONFIG",
        "AIRFLOW_CONN_AWS_DEFAULT": f"aws://x:y@/?endpoint_url={url.replace(':', '%3A').replace('/', '%2F')}"
        "&region_name=us-east-1",
    }
    result: dict[str, object] = {"megabytes": megabytes}
    log = "dag_id=a/run_id=r/task_id=t/attempt=1.log"
    for side in ("upstream", "tradewind"):
        path = home / "logs" / log
        path.parent.mkdir(parents=True, exist_ok=True)
        line = b'{"timestamp":"2026-01-01T00:00:00.000000Z","event":"' + b"x" * 146 + b'"}\n'
        with path.open("wb") as file:
            for _ in range(megabytes * 5):
                file.write(line * 1000)
        result[side] = run(SIDE, side, str(home / "logs"), log, env=env)
        stored = client.head_object(Bucket="bench-logs", Key=f"{'upstream' if side == 'upstream' else 'ours'}/{log}")[
            "ContentLength"
        ]
        if stored != megabytes * 5000 * len(line):
            raise RuntimeError(f"{side}: {stored} bytes arrived, expected {megabytes * 5000 * len(line)}")
    result["per_line"] = run(MARKER, env=env)
    return result


if __name__ == "__main__":
    sys.exit(main())
