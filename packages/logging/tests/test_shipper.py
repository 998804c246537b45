# SPDX-License-Identifier: Apache-2.0
"""Recording while it is written: a real structlog logger, real files, real storages, faults caused for real."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog

from tradewind.logging import layout, spool
from tradewind.logging.config import LogSettings
from tradewind.logging.remote import TradewindRemoteLogIO
from tradewind.logging.store import Store, open_store

LOG = "dag_id=a/run_id=r/task_id=t/attempt=1.log"


class Task:
    """Writes a log as Airflow's supervisor does."""

    def __init__(self, io: TradewindRemoteLogIO, log: str = LOG, mode: str = "ab") -> None:
        self.io, self.log = io, log
        self.path = io.settings.local_base / log
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open(mode)
        self.logger = structlog.wrap_logger(
            structlog.BytesLogger(self.file),
            # Airflow's lines have their time, too: no two sessions have the same bytes.
            processors=[
                structlog.processors.TimeStamper(),
                *io.processors,
                lambda _logger, _name, event: json.dumps(event).encode(),
            ],
        )

    def write(self, lines: int, size: int = 80) -> None:
        for number in range(lines):
            self.logger.info("x" * size, number=number)

    def end(self) -> None:
        self.io.upload(self.log)
        self.file.close()


@pytest.fixture
def make(tmp_path):
    def factory(**settings: object) -> TradewindRemoteLogIO:
        values = {
            "remote_base": f"file://{tmp_path}/remote",
            "local_base": tmp_path / "local",
            "first_flush_seconds": 0.2,
            "flush_interval_seconds": 0.4,
            "upload_timeout_seconds": 1.0,
            "part_bytes": 1 << 16,
        }
        (tmp_path / "local").mkdir(exist_ok=True)
        return TradewindRemoteLogIO(LogSettings(**{**values, **settings}))  # type: ignore[arg-type]

    return factory


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(f"file://{tmp_path}/remote")


def stored(store: Store, log: str = LOG) -> bytes:
    """The log as a reader sees it, every session once."""
    return b"".join(
        store.read(segment.key, segment.start, segment.size)
        for session in layout.sessions(log, store.list(log))
        for segment in session.segments
    )


def wait_for(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_lines_are_in_the_storage_while_the_task_runs(make, store):
    io = make()
    task = Task(io)
    task.write(10)
    written = task.path.read_bytes()
    wait_for(lambda: stored(store) == written)
    task.write(10)
    wait_for(lambda: stored(store) == task.path.read_bytes())
    task.end()


def test_a_short_log_ends_as_one_object_with_the_files_bytes(make, store, tmp_path):
    io = make()
    task = Task(io)
    task.write(50)
    written = task.path.read_bytes()
    task.end()
    assert store.list(LOG) == {LOG: len(written)}
    assert store.read(LOG) == written
    assert task.path.stat().st_size == 0
    assert list((tmp_path / "local" / spool.FOLDER).iterdir()) == []


def test_a_long_log_grows_in_parts_and_ends_as_one_object(make, store):
    io = make()
    task = Task(io)
    for _ in range(8):
        task.write(500)
        time.sleep(0.15)
    written = task.path.read_bytes()
    wait_for(lambda: len(store.list(LOG)) > 3)
    assert written.startswith(stored(store)[: len(written)])
    task.end()
    assert store.list(LOG) == {LOG: len(written)}
    assert store.read(LOG) == written


def test_half_a_line_is_held_back_until_the_end(make, store):
    io = make()
    task = Task(io)
    task.write(3)
    whole = task.path.read_bytes()
    task.file.write(b'{"event": "half')
    task.file.flush()
    wait_for(lambda: stored(store) == whole)
    time.sleep(1)
    assert stored(store) == whole
    task.end()
    assert stored(store) == whole + b'{"event": "half'


def test_a_single_line_longer_than_many_parts_arrives(make, store):
    io = make()
    task = Task(io)
    task.write(1, size=1_000_000)
    task.write(1)
    written = task.path.read_bytes()
    wait_for(lambda: stored(store) == written)
    task.end()
    assert store.read(LOG) == written


def test_each_session_of_a_deferred_task_has_an_object_of_its_own(make, store):
    io = make()
    written = []
    for _ in range(3):
        task = Task(io)
        task.write(5)
        written.append(task.path.read_bytes())
        task.end()
    assert stored(store) == b"".join(written)
    assert [session.size for session in layout.sessions(LOG, store.list(LOG))] == [len(text) for text in written]


def test_two_supervisors_of_one_attempt_do_not_overwrite_each_other(make, store, tmp_path):
    first, second = make(), make(local_base=tmp_path / "other")
    tasks = [Task(first), Task(second)]
    tasks[0].write(20)
    tasks[1].write(30)
    texts = [task.path.read_bytes() for task in tasks]
    for task in tasks:
        task.end()
    assert sorted(stored(store)) == sorted(b"".join(texts))
    assert len(layout.sessions(LOG, store.list(LOG))) == 2


@pytest.mark.parametrize("delete", [False, True])
def test_bytes_that_another_process_left_in_the_file_are_not_given_up(make, store, delete):
    io = make(delete_local_logs=delete)
    path = io.settings.local_base / LOG
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old and never sent\n")
    task = Task(io)
    task.write(3)
    text = task.path.read_bytes()
    task.end()
    assert stored(store) == text.removeprefix(b"old and never sent\n")
    assert path.read_bytes() == text


def test_delete_local_logs_removes_this_attempts_file_only(make, store):
    io = make(delete_local_logs=True)
    task, other = Task(io), Task(io, LOG.replace("attempt=1", "attempt=2"))
    task.write(5)
    other.write(5)
    task.end()
    assert not task.path.exists()
    assert other.path.stat().st_size > 0
    other.end()


def test_a_storage_that_is_down_loses_nothing_and_delays_the_end_by_the_timeout_only(make, store, tmp_path):
    blocked = tmp_path / "remote"
    blocked.write_text("a file where the storage's folder should be")
    io = make()
    task = Task(io)
    task.write(20)
    written = task.path.read_bytes()
    begin = time.monotonic()
    task.end()
    assert 0.9 < time.monotonic() - begin < 3
    assert task.path.read_bytes() == written
    assert io.shipper.stats.failures > 0
    assert len(list(spool.journals(tmp_path / "local"))) == 1
    # The process lives on, and so does its attempt to get rid of the log.
    blocked.unlink()
    wait_for(lambda: stored(store) == written, 30)
    wait_for(lambda: task.path.stat().st_size == 0)


def test_a_storage_that_goes_and_comes_back_while_the_task_runs_misses_nothing(make, store, tmp_path):
    io = make()
    task = Task(io)
    task.write(20)
    wait_for(lambda: stored(store) == task.path.read_bytes())
    shutil.move(tmp_path / "remote", tmp_path / "away")
    (tmp_path / "remote").write_text("gone")
    task.write(20)
    wait_for(lambda: io.shipper.stats.failures > 0)
    (tmp_path / "remote").unlink()
    shutil.move(tmp_path / "away", tmp_path / "remote")
    wait_for(lambda: stored(store) == task.path.read_bytes(), 20)
    task.end()


def test_a_killed_process_leaves_all_but_the_last_interval_and_a_journal_for_the_rest(make, store, tmp_path):
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from tradewind.logging.config import LogSettings
from tradewind.logging.remote import TradewindRemoteLogIO
import importlib.util
spec = importlib.util.spec_from_file_location("t", {str(Path(__file__))!r})
t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t)
io = TradewindRemoteLogIO(LogSettings(remote_base="file://{tmp_path}/remote", local_base=Path("{tmp_path}/local"),
    first_flush_seconds=0.2, flush_interval_seconds=0.4))
task = t.Task(io)
while True:
    task.write(1); time.sleep(0.01)
"""
    (tmp_path / "local").mkdir()
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_for(lambda: len(stored(store)) > 8000, 60)
    finally:
        process.kill()
        process.wait()
    local = (tmp_path / "local" / LOG).read_bytes()
    assert local.startswith(stored(store))
    ((path, record),) = spool.journals(tmp_path / "local")
    assert record.head == LOG
    journal = spool.take_over(path)
    assert journal is not None
    journal.close()


def test_a_forked_child_neither_sends_nor_gives_up_the_parents_journal(make, store, tmp_path):
    io = make()
    task = Task(io)
    task.write(5)
    wait_for(lambda: stored(store) == task.path.read_bytes())
    child = os.fork()
    if child == 0:
        # A child that ends through os._exit, as a task's process may.
        ok = not io.shipper._streams and io.shipper._thread is None
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    (path,) = (tmp_path / "local" / spool.FOLDER).glob("*.jsonl")
    code = f"from pathlib import Path; from tradewind.logging import spool; print(spool.take_over(Path({str(path)!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "None"
    task.write(5)
    wait_for(lambda: stored(store) == task.path.read_bytes())
    task.end()


def test_a_triggers_log_is_handed_over_at_once_and_its_name_is_free_again(make, store):
    io = make(first_flush_seconds=5.0)
    log = f"{LOG}.trigger.7.log"
    texts = []
    for _ in range(2):
        task = Task(io, log, mode="wb")
        task.write(40)
        texts.append(task.path.read_bytes())
        begin = time.monotonic()
        task.end()
        assert time.monotonic() - begin < 0.5
    # Both end at once, so either may get the log's own name.
    wait_for(lambda: stored(store, log) in {b"".join(texts), b"".join(reversed(texts))})
    wait_for(lambda: list(task.path.parent.glob("*.done")) == [])


def test_trigger_logs_stay_local_when_switched_off(make, store):
    io = make(include_trigger_logs=False)
    task = Task(io, f"{LOG}.trigger.7.log", mode="wb")
    task.write(5)
    task.end()
    time.sleep(0.5)
    assert store.list(LOG) == {}
    assert task.path.stat().st_size > 0


@pytest.mark.parametrize("log", ["dag_processor/2026-01-01/a.py.log", "scheduler/x.log"])
def test_other_components_logs_are_left_alone(make, store, log):
    io = make()
    task = Task(io, log)
    task.write(5)
    time.sleep(0.6)
    assert list(store.walk()) == []
    assert io.shipper._thread is None


def test_a_logger_without_a_file_is_left_alone(make, store):
    io = make()
    with open(os.devnull, "wb", closefd=True) as sink:  # noqa: PTH123 - the name is a device, not a log
        logger = structlog.wrap_logger(structlog.BytesLogger(sink), processors=[*io.processors, lambda *_: b"x"])
        logger.info("x")
    assert io.shipper._streams == {}


def test_the_thread_is_gone_when_nothing_is_left_to_send(make):
    io = make()
    task = Task(io)
    task.write(5)
    assert io.shipper._thread is not None
    task.end()
    wait_for(lambda: io.shipper._thread is None)


def test_hundreds_of_open_logs_share_one_thread(make, store):
    import threading

    io = make(max_puts_per_second=100000.0)
    before = threading.active_count()
    tasks = [Task(io, f"dag_id=a/task_id={number}/attempt=1.log.trigger.1.log", mode="wb") for number in range(300)]
    for task in tasks:
        task.write(1)
    assert threading.active_count() - before <= 5
    wait_for(lambda: sum(1 for _ in store.walk()) == 300, 30)
    for task in tasks:
        task.end()
    wait_for(lambda: io.shipper._thread is None, 30)
