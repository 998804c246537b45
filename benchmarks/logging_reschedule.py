# SPDX-License-Identifier: Apache-2.0
"""Bytes that a sensor in reschedule mode writes to S3: Airflow's S3 logging and ours.

hatch run bench:logging_reschedule [--pokes 250 500 1000] [--ours-only 10000]

Each poke is a session of five lines of 200 bytes, uploaded at its end to a moto server. Airflow reads the whole old
object and writes it again with each poke; bytes are counted where they leave the client.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.object_storage import S3Server, running_s3

LINE = b'{"timestamp":"2026-01-01T00:00:00.000000Z","event":"' + b"x" * 146 + b'"}\n'
LINES = 5


def upstream(base: Path, s3: S3Server, pokes: int) -> tuple[int, float]:
    """Airflow's own: bytes written, and seconds."""
    from airflow.providers.amazon.aws.log.s3_task_handler import S3RemoteLogIO

    io = S3RemoteLogIO(remote_base=f"s3://bench/theirs{pokes}", base_log_folder=base, delete_local_copy=False)
    written = 0

    def count(request: object, **_: object) -> None:
        nonlocal written
        written += int(getattr(request, "headers")["Content-Length"])  # noqa: B009 - botocore has no types

    io.hook.get_conn().meta.events.register("before-send.s3.PutObject", count)
    log = f"dag_id=a/run_id=r/task_id=theirs{pokes}/attempt=1.log"
    path = base / log
    path.parent.mkdir(parents=True)
    began = time.monotonic()
    for _ in track(range(pokes), f"upstream, {pokes} pokes", transient=True):
        with path.open("ab") as file:
            file.write(LINE * LINES)
        io.upload(log, None)
    return written, time.monotonic() - began


def ours(base: Path, s3: S3Server, pokes: int) -> tuple[int, float]:
    """Ours: bytes written, and seconds."""
    from tradewind.logging.config import LogSettings
    from tradewind.logging.remote import TradewindRemoteLogIO

    options = {"key": s3.key, "secret": s3.secret, "endpoint_url": s3.url, "client_kwargs": {"region_name": s3.region}}
    io = TradewindRemoteLogIO(
        LogSettings(remote_base="s3://bench/ours", local_base=base, storage_options=options, max_puts_per_second=10_000)
    )
    log = f"dag_id=a/run_id=r/task_id=ours{pokes}/attempt=1.log"
    path = base / log
    path.parent.mkdir(parents=True)
    began = time.monotonic()
    for _ in track(range(pokes), f"ours, {pokes} pokes", transient=True):
        with path.open("ab") as file:
            file.write(LINE * LINES)
        io.upload(log)
    return io.shipper.stats.put_bytes, time.monotonic() - began


def main() -> None:
    """Measure both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pokes", type=int, nargs="+", default=[250, 500, 1000])
    parser.add_argument("--ours-only", type=int, nargs="*", default=[])
    options = parser.parse_args()
    table = Table(title=f"a sensor in reschedule mode, {len(LINE) * LINES} bytes a poke")
    for column in ("pokes", "upstream wrote", "ours wrote", "ours to upstream", "upstream took", "ours took"):
        table.add_column(column)
    with tempfile.TemporaryDirectory(prefix="tradewind-bench-") as folder, running_s3() as s3:
        os.environ["AIRFLOW_HOME"] = folder
        os.environ["AIRFLOW_CONN_LOGS"] = s3.connection_uri()
        os.environ["AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID"] = "logs"
        s3.create_bucket("bench")
        base = Path(folder) / "logs"
        for pokes in sorted({*options.pokes, *options.ours_only}):
            mine, seconds = ours(base, s3, pokes)
            row = [f"{mine / 1e6:.2f} MB", "", "", f"{seconds:.1f} s"]
            if pokes in options.pokes:
                theirs, took = upstream(base, s3, pokes)
                row = [f"{mine / 1e6:.2f} MB", f"{mine / theirs:.4f}x", f"{took:.1f} s", f"{seconds:.1f} s"]
                table.add_row(str(pokes), f"{theirs / 1e6:.2f} MB", *row)
            else:
                table.add_row(str(pokes), "-", *row)
    Console().print(table)


if __name__ == "__main__":
    main()
