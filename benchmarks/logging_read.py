# SPDX-License-Identifier: Apache-2.0
"""Time to the first line and peak memory of the api-server while it shows one large finished log.

Airflow's `FileTaskHandler` with the amazon provider's `S3RemoteLogIO` against `TradewindTaskHandler`, both
through `TaskLogReader.read_log_stream`, which is what the log page asks for (NDJSON). Each runs in a process
of its own, one after the other, against a moto server on the loopback that this script starts and stops.

    python benchmarks/logging_read.py [--megabytes 200]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable

_BUCKET = "logs"
_LOG = "dag_id=bench/run_id=r/task_id=t/attempt=1.log"
_KILOBYTES_PER_MEGABYTE = 1024
_START_SECONDS = 60


def _options(endpoint: str) -> dict[str, Any]:
    return {
        "key": "x",
        "secret": "y",
        "endpoint_url": endpoint,
        "client_kwargs": {"region_name": "us-east-1"},
    }


def _line(number: int) -> bytes:
    micro = number % 1_000_000
    second = number // 1_000_000
    rows = number * 7919 % 1000003
    event = f"Loaded partition {number} of the table: {rows} rows, checksum {number * 31337 % 999983:08d}"
    text = (
        f'{{"timestamp":"2026-01-01T00:00:{second:02d}.{micro:06d}Z","level":"info","event":"{event}",'
        '"logger":"task.stdout","filename":"loader.py","lineno":42}\n'
    )
    return text.encode()


def _upstream_handler(endpoint: str, base: Path) -> Any:
    os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = json.dumps(
        {
            "conn_type": "aws",
            "login": "x",
            "password": "y",
            "extra": {"endpoint_url": endpoint, "region_name": "us-east-1"},
        }
    )
    os.environ["AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID"] = "aws_default"
    from airflow.providers.amazon.aws.log.s3_task_handler import S3RemoteLogIO
    from airflow.utils.log.file_task_handler import FileTaskHandler

    remote = S3RemoteLogIO(remote_base=f"s3://{_BUCKET}", base_log_folder=base, delete_local_copy=False)

    class Handler(FileTaskHandler):
        def _render_filename(self, *_: Any, **__: Any) -> str:
            return _LOG

        def _read_remote_logs(self, ti: Any, *_: Any, **__: Any) -> Any:
            sources, logs = remote.read(_LOG, ti)
            return sources, logs or []

    return Handler(str(base))


def _our_handler(endpoint: str, base: Path) -> Any:
    from tradewind.logging.config import LogSettings
    from tradewind.logging.handler import TradewindTaskHandler
    from tradewind.logging.store import open_store

    store = open_store(f"s3://{_BUCKET}", _options(endpoint))
    settings = LogSettings(remote_base=f"s3://{_BUCKET}", local_base=base)

    class Handler(TradewindTaskHandler):
        def _render_filename(self, *_: Any, **__: Any) -> str:
            return _LOG

    return Handler(str(base), source=lambda: (store, settings))


_HANDLERS: dict[str, Callable[[str, Path], Any]] = {"airflow": _upstream_handler, "tradewind": _our_handler}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KILOBYTES_PER_MEGABYTE


def _measure(name: str, endpoint: str) -> dict[str, float]:
    from airflow.utils.log.log_reader import TaskLogReader

    with tempfile.TemporaryDirectory() as folder:
        reader = TaskLogReader()
        reader.__dict__["log_handler"] = _HANDLERS[name](endpoint, Path(folder))
        ti = cast("Any", SimpleNamespace(state="success", try_number=1, hostname="", triggerer_job=None))
        before = _peak_mb()
        begin = time.perf_counter()
        first = 0.0
        lines = 0
        for text in reader.read_log_stream(ti, 1, cast("Any", {})):
            # The header says nothing about the log itself.
            if not first and "Loaded partition" in text:
                first = time.perf_counter() - begin
            lines += 1
        return {
            "lines": lines,
            "first_line_seconds": round(first, 3),
            "all_seconds": round(time.perf_counter() - begin, 2),
            "peak_rss_mb": round(_peak_mb(), 1),
            "growth_mb": round(_peak_mb() - before, 1),
        }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit("the moto server did not start")


def _fill(endpoint: str, megabytes: int, folder: Path) -> None:
    from tradewind.logging.store import open_store

    path = folder / "log"
    with path.open("wb") as file:
        number = 0
        while file.tell() < megabytes << 20:
            file.writelines(_line(n) for n in range(number, number + 1000))
            number += 1000
    store = open_store(f"s3://{_BUCKET}", _options(endpoint))
    store.filesystem.call_s3("create_bucket", Bucket=_BUCKET)
    store.put_file(_LOG, path)
    path.unlink()


def _run(megabytes: int) -> dict[str, Any]:
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, "AIRFLOW_HOME": name, "NO_PROXY": "127.0.0.1"}
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(port, server)
            _fill(endpoint, megabytes, folder)
            result: dict[str, Any] = {"megabytes": megabytes}
            for handler in _HANDLERS:
                run = subprocess.run(
                    [sys.executable, __file__, "--handler", handler, "--endpoint", endpoint],
                    env=environment,
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                result[handler] = json.loads(run.stdout.splitlines()[-1])
        finally:
            server.terminate()
            server.wait()
    return result


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200, help="size of the log")
    parser.add_argument("--handler", choices=sorted(_HANDLERS), help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.handler:
        sys.stdout.write(f"{json.dumps(_measure(arguments.handler, arguments.endpoint))}\n")
        return 0
    result = _run(arguments.megabytes)
    theirs, ours = result["airflow"], result["tradewind"]
    result["ratios"] = {
        key: round(theirs[key] / ours[key], 1)
        for key in ("first_line_seconds", "all_seconds", "peak_rss_mb", "growth_mb")
        if ours[key]
    }
    for key, ratio in result["ratios"].items():
        sys.stdout.write(f"{key}: airflow {theirs[key]}, tradewind {ours[key]}, ratio {ratio}\n")
    sys.stdout.write(f"{json.dumps(result)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
