# SPDX-License-Identifier: Apache-2.0
"""What recording a running task costs and gives: Airflow's S3 logging and ours, with real schedulers and moto.

hatch run bench:logging_recording [--lines 60000] [--rounds 2] [--seconds 30]

| figure | how |
|---|---|
| lines at risk | a task prints 20 lines a second; its supervisor is killed with SIGKILL after half of `--seconds` |
| line until it is in the bucket | the same task, left alone; a client lists and reads the bucket every 0.1 s |
| saturating task | `--lines` lines of 200 bytes and of 1 KB, as fast as possible: the loop, and until all is stored |
| writes | tasks of 1 s and 10 s that print 10 lines a second; one hour stands for a minute with intervals / 60 |

Scheduler and tasks share this machine's CPUs with the moto server, which runs at the lowest priority.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.airflow_server import AirflowServer, wait_for
from support.object_storage import S3Server, running_s3

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DAG = """
import json
import os
import time
from pathlib import Path

from airflow.sdk import dag, get_current_context, task


@dag(schedule=None)
def steady():
    @task
    def steady():
        conf = get_current_context()["dag_run"].conf
        Path(conf["pid"]).write_text(str(os.getppid()))
        end = time.monotonic() + conf["seconds"]
        number = 0
        while time.monotonic() < end:
            print(f"line {number} {time.time():.3f} " + "x" * 100, flush=True)
            number += 1
            time.sleep(1 / conf["rate"])

    steady()


@dag(schedule=None)
def saturating():
    @task
    def saturating():
        conf = get_current_context()["dag_run"].conf
        text = "x" * conf["bytes"]
        began = time.monotonic()
        for number in range(conf["lines"]):
            print(text)
        Path(conf["result"]).write_text(str(time.monotonic() - began))

    saturating()


steady()
saturating()
"""
OURS = {"AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "tradewind.logging.settings.LOGGING_CONFIG"}
HOUR = {
    "AIRFLOW__TRADEWIND_LOGGING__FLUSH_INTERVAL_SECONDS": str(5 / 60),
    "AIRFLOW__TRADEWIND_LOGGING__FIRST_FLUSH_SECONDS": str(1 / 60),
    "AIRFLOW__TRADEWIND_LOGGING__ECONOMY_AFTER_SECONDS": "10",
    "AIRFLOW__TRADEWIND_LOGGING__ECONOMY_INTERVAL_SECONDS": str(10 / 60),
}


class Side:
    """One deployment that is running."""

    def __init__(self, airflow: AirflowServer, s3: S3Server, bucket: str) -> None:
        self.airflow = airflow
        self.client = airflow.client("admin")
        self.s3 = s3.client()
        self.bucket = bucket

    def trigger(self, task: str, **conf: object) -> str:
        """Start a run; returns the path of the task's log."""
        answer = self.client.post(f"api/v2/dags/{task}/dagRuns", json={"logical_date": None, "conf": conf})
        run = answer.raise_for_status().json()["dag_run_id"]
        return f"dag_id={task}/run_id={run}/task_id={task}/attempt=1.log"

    def wait(self, log: str) -> None:
        """Wait until a log's task has ended and its supervisor has given the local file up."""
        _, run, task, _ = (part.partition("=")[2] for part in log.split("/"))
        path = f"api/v2/dags/{task}/dagRuns/{run}/taskInstances/{task}"
        wait_for(
            lambda: self.client.get(path).json().get("state") in {"success", "failed"}, what=log, timeout_seconds=900
        )
        self.wait_until_uploaded(log)

    def wait_until_uploaded(self, log: str, interval_seconds: float = 0.25) -> None:
        """Wait until a supervisor has given a local file up."""
        local = self.airflow.home / "logs" / log
        wait_for(
            lambda: not local.exists() or not local.stat().st_size,
            what=f"upload of {log}",
            timeout_seconds=300,
            interval_seconds=interval_seconds,
        )

    def stored(self, log: str) -> str:
        """All that the bucket has of a log."""
        listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=f"logs/{log}").get("Contents", [])
        bodies = [self.s3.get_object(Bucket=self.bucket, Key=entry["Key"])["Body"].read() for entry in listed]
        return b"".join(bodies).decode("utf-8", "replace")


@contextmanager
def deployment(base: Path, s3: S3Server, name: str, env: Mapping[str, str]) -> Iterator[Side]:
    """A running Airflow whose logs go to a bucket of its own."""
    bucket = f"{name}-{base.name[-6:].lower().replace('_', '0')}"
    s3.create_bucket(bucket)
    home = base / name
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "bench.py").write_text(DAG, encoding="utf-8")
    settings = {
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"s3://{bucket}/logs",
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "logs",
        "AIRFLOW_CONN_LOGS": s3.connection_uri(),
        **env,
    }
    with AirflowServer(home, env=settings) as airflow:
        airflow.migrate()
        airflow.start_api_server()
        airflow.start("scheduler", "--skip-serve-logs")
        airflow.start("dag-processor")
        client = airflow.client("admin")
        for dag in ("steady", "saturating"):
            path = f"api/v2/dags/{dag}"
            wait_for(lambda path=path: client.get(path).is_success, what="the Dag", timeout_seconds=240)
            client.patch(path, json={"is_paused": False}).raise_for_status()
        yield Side(airflow, s3, bucket)


def delays(side: Side, seconds: float) -> dict[str, float]:
    """Seconds from printing a line until a client sees it in the bucket."""
    log = side.trigger("steady", seconds=seconds, rate=20, pid=str(side.airflow.home / "pid"))
    seen: dict[int, float] = {}
    done = threading.Event()

    def wait() -> None:
        side.wait(log)
        done.set()

    threading.Thread(target=wait, daemon=True).start()
    last = False
    while not last:
        last = done.is_set()
        text = side.stored(log)
        now = time.time()
        for number, printed in re.findall(r"line (\d+) (\d+\.\d+) ", text):
            seen.setdefault(int(number), now - float(printed))
        time.sleep(0.1)
    ordered = sorted(seen.values())
    return {"p95": ordered[int(len(ordered) * 0.95)], "first": seen[0]}


def at_risk(side: Side, seconds: float) -> dict[str, float]:
    """What the bucket lacks after the supervisor was killed, and after a sweep."""
    pid = side.airflow.home / "killed"
    log = side.trigger("steady", seconds=seconds, rate=20, pid=str(pid))
    wait_for(lambda: pid.exists() and pid.read_text(), what="the task", timeout_seconds=240)
    time.sleep(seconds / 2)
    os.kill(int(pid.read_text()), signal.SIGKILL)
    local = side.airflow.home / "logs" / log
    written = re.findall(r"line (\d+) (\d+\.\d+) ", local.read_text(encoding="utf-8"))
    stored = len(re.findall(r"line (\d+) ", side.stored(log)))
    lost = float(written[-1][1]) - float(written[stored - 1][1] if stored else written[0][1])
    result = {"lines": len(written) - stored, "share": (len(written) - stored) / len(written), "seconds": lost}
    if "LOGGING_CONFIG_CLASS" in "".join(side.airflow.env):
        side.airflow.run("tradewind-logs", "sweep", "--min-age-seconds", "0", "--output", "json")
    result["swept"] = len(written) - len(re.findall(r"line (\d+) ", side.stored(log)))
    return result


def saturating(side: Side, lines: int, size: int) -> tuple[float, float]:
    """Seconds that the loop inside the task takes, and from its begin until its log is in the bucket."""
    result = side.airflow.home / f"result-{time.time_ns()}"
    log = side.trigger("saturating", lines=lines, bytes=size, result=str(result))
    wait_for(lambda: result.exists() and result.read_text(), what=log, timeout_seconds=900, interval_seconds=0.1)
    seconds = float(result.read_text())
    ended = result.stat().st_mtime
    side.wait_until_uploaded(log, interval_seconds=0.05)
    return seconds, seconds + time.time() - ended


def writes(side: Side, receiver: socket.socket, seconds: float) -> int:
    """How many objects a task writes."""
    _received(receiver)
    side.wait(side.trigger("steady", seconds=seconds, rate=10, pid=str(side.airflow.home / "pid")))
    return _received(receiver)


def _received(receiver: socket.socket) -> int:
    # The scheduler goes on talking: what has arrived by now, and not until nothing comes.
    total = 0
    until = time.monotonic() + 1
    receiver.settimeout(0.2)
    while time.monotonic() < until:
        try:
            text = receiver.recv(65536).decode()
        except TimeoutError:
            continue
        total += sum(int(number) for number in re.findall(r"tradewind_logging\.puts:(\d+)\|c", text))
    return total


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    console = Console()
    slow: dict[tuple[str, int], list[tuple[float, float]]] = {}
    found: dict[str, dict[str, float]] = {}
    counted: dict[str, int] = {}
    with (
        tempfile.TemporaryDirectory(prefix="tradewind-bench-") as folder,
        running_s3() as s3,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        # A storage is another machine's work.
        os.setpriority(os.PRIO_PROCESS, s3.pid, 19)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        receiver.bind(("127.0.0.1", 0))
        for number in range(options.rounds):
            for name, env in (("upstream", {}), ("ours", OURS)):
                with (
                    console.status(f"round {number + 1}: {name}"),
                    deployment(Path(folder), s3, f"{name}{number}", env) as side,
                ):
                    for size in (200, 1000):
                        slow.setdefault((name, size), []).append(saturating(side, options.lines, size))
                    if number == 0:
                        found[name] = delays(side, options.seconds) | at_risk(side, options.seconds)
        statsd = {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(receiver.getsockname()[1]),
        }
        with console.status("writes"), deployment(Path(folder), s3, "writes", {**OURS, **statsd}) as side:
            counted = {"1 s": writes(side, receiver, 1), "10 s": writes(side, receiver, 10)}
        with (
            console.status("writes of an hour"),
            deployment(Path(folder), s3, "hour", {**OURS, **statsd, **HOUR}) as side,
        ):
            counted["1 h"] = writes(side, receiver, 60)
    table = Table(title="recording a running task")
    for column in ("figure", "upstream", "ours", "ours to upstream"):
        table.add_column(column)
    theirs, ours = found["upstream"], found["ours"]
    for title, key, suffix in (
        ("lines lost with the supervisor", "share", ""),
        ("seconds of them", "seconds", " s"),
        ("lines lost after a sweep", "swept", ""),
        ("line until it is in the bucket, p95", "p95", " s"),
        ("first line until it is in the bucket", "first", " s"),
    ):
        table.add_row(title, f"{theirs[key]:.2f}{suffix}", f"{ours[key]:.2f}{suffix}", "")
    for size in (200, 1000):
        for index, what in enumerate(("the loop", "until stored")):
            one, two = (statistics.median(pair[index] for pair in slow[name, size]) for name in ("upstream", "ours"))
            title = f"saturating task, {options.lines} lines of {size} bytes: {what}"
            table.add_row(title, f"{one:.2f} s", f"{two:.2f} s", f"{two / one:.2f}x")
    for title, count in counted.items():
        table.add_row(f"writes of a task of {title}", "1", str(count), "")
    console.print(table)
    console.print(json.dumps({f"{name} {size}": values for (name, size), values in slow.items()}))


if __name__ == "__main__":
    main()
