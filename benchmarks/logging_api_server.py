# SPDX-License-Identifier: Apache-2.0
"""A large finished log through a real api-server, as the log page asks for it: Airflow's S3 logging and ours.

hatch run bench:logging_api_server [--megabytes 200] [--ours-only 1000 5000]

A real task makes the log; its object is then replaced by a large one. The moto server keeps its objects in memory and
shares this machine; sizes given with `--ours-only` are therefore read from a folder (`file://`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.airflow_server import AirflowServer, wait_for
from support.object_storage import S3Server, running_s3

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DAG = """
from airflow.sdk import dag, task


@dag(schedule=None)
def bench():
    @task
    def one():
        print("a small log", flush=True)

    one()


bench()
"""
OURS = {"AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "tradewind.logging.settings.LOGGING_CONFIG"}
BUCKET = "bench"


@contextmanager
def finished_run(home: Path, env: Mapping[str, str]) -> Iterator[tuple[AirflowServer, str]]:
    """An api-server that knows one finished run; yields it and the path of its task's log."""
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "bench.py").write_text(DAG, encoding="utf-8")
    with AirflowServer(home, env={"AIRFLOW__LOGGING__REMOTE_LOGGING": "True", **env}) as airflow:
        airflow.migrate()
        airflow.start_api_server()
        airflow.start("scheduler", "--skip-serve-logs")
        airflow.start("dag-processor")
        run = airflow.run_dag("bench")
        log = f"dag_id=bench/run_id={run}/task_id=one/attempt=1.log"
        local = airflow.home / "logs" / log
        wait_for(lambda: not local.exists() or not local.stat().st_size, what="the upload", timeout_seconds=60)
        airflow.stop("scheduler", "dag-processor")
        yield airflow, log


def read(airflow: AirflowServer, log: str) -> dict[str, float]:
    """Read a log to its end as NDJSON; seconds, and the api-server's peak memory in bytes."""
    _, run, task, _ = (part.partition("=")[2] for part in log.split("/"))
    url = f"api/v2/dags/bench/dagRuns/{run}/taskInstances/{task}/logs/1"
    (pid,) = airflow.pids("api-server")
    before = _peak(pid, begin=True)
    first, size = 0.0, 0
    client = airflow.client("admin")
    client.timeout = 1800
    began = time.monotonic()
    with client.stream("GET", url, headers={"Accept": "application/x-ndjson"}) as answer:
        answer.raise_for_status()
        for block in answer.iter_bytes():
            size += len(block)
            # The header says nothing about the log itself.
            if not first and b"Loaded partition" in block:
                first = time.monotonic() - began
    seconds = time.monotonic() - began
    peak = _peak(pid)
    return {"first": first, "all": seconds, "peak": peak, "growth": peak - before, "bytes": size}


def _peak(pid: int, *, begin: bool = False) -> int:
    peaks = []
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        folder = Path(f"/proc/{process.pid}")
        if begin:
            # The peak begins anew (proc_pid_clear_refs(5)).
            (folder / "clear_refs").write_text("5", encoding="utf-8")
        status = (folder / "status").read_text(encoding="utf-8")
        peaks += [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")]
    return max(peaks)


def write(path: Path, megabytes: int) -> None:
    """A log of lines of about 200 bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        number = 0
        while file.tell() < megabytes * 1_000_000:
            for _ in range(1000):
                micro = f"{number // 1_000_000:02d}.{number % 1_000_000:06d}"
                event = f"Loaded partition {number} of the table, {number * 7919 % 1000003} rows"
                text = (
                    f'{{"timestamp":"2026-01-01T00:{number // 60_000_000:02d}:{micro}Z","level":"info",'
                    f'"event":"{event}","logger":"task.stdout","filename":"loader.py","lineno":42}}\n'
                )
                file.write(text.encode())
                number += 1


def on_s3(base: Path, s3: S3Server, name: str, env: Mapping[str, str], megabytes: int) -> dict[str, float]:
    """One side, with the log in S3."""
    settings = {
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"s3://{BUCKET}/{name}",
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "logs",
        "AIRFLOW_CONN_LOGS": s3.connection_uri(),
        **env,
    }
    with finished_run(base / name, settings) as (airflow, log):
        large = base / "large"
        write(large, megabytes)
        s3.client().upload_file(str(large), BUCKET, f"{name}/{log}")
        return read(airflow, log)


def in_a_folder(base: Path, megabytes: int) -> dict[str, float]:
    """Ours, with the log in a folder."""
    home = base / f"folder{megabytes}"
    settings = {"AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"file://{home}/bucket", **OURS}
    with finished_run(home, settings) as (airflow, log):
        path = home / "bucket" / log
        write(path, megabytes)
        found = read(airflow, log)
        path.unlink()
        return found


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.4f}x" if theirs else "-"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--ours-only", type=int, nargs="*", default=[])
    options = parser.parse_args()
    console = Console()
    table = Table(title="one finished log through a real api-server")
    for column in ("log", "first line", "all of it", "peak memory", "growth of it"):
        table.add_column(column)

    def row(title: str, found: Mapping[str, float]) -> None:
        table.add_row(
            title,
            f"{found['first']:.2f} s",
            f"{found['all']:.1f} s",
            f"{found['peak'] / 1e6:.0f} MB",
            f"{found['growth'] / 1e6:.0f} MB",
        )

    with tempfile.TemporaryDirectory(prefix="tradewind-bench-") as folder:
        base = Path(folder)
        with running_s3() as s3:
            s3.create_bucket(BUCKET)
            with console.status("upstream"):
                theirs = on_s3(base, s3, "upstream", {}, options.megabytes)
            with console.status("ours"):
                ours = on_s3(base, s3, "ours", OURS, options.megabytes)
        row(f"upstream, S3, {options.megabytes} MB", theirs)
        row(f"ours, S3, {options.megabytes} MB", ours)
        table.add_row("ours to upstream", *(_ratio(ours[k], theirs[k]) for k in ("first", "all", "peak", "growth")))
        for megabytes in options.ours_only:
            with console.status(f"ours, {megabytes} MB"):
                row(f"ours, folder, {megabytes} MB", in_a_folder(base, megabytes))
    console.print(table)


if __name__ == "__main__":
    main()
