# SPDX-License-Identifier: Apache-2.0
"""What killed processes leave is stored exactly once: real processes, real locks, real storages."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tradewind.logging import layout, spool
from tradewind.logging.config import LogSettings
from tradewind.logging.exceptions import LogSettingsError
from tradewind.logging.store import Store, open_store
from tradewind.logging.sweep import sweep

if TYPE_CHECKING:
    from pathlib import Path

LOG = "dag_id=a/run_id=b/task_id=c/attempt=1.log"

# Writes a log as a supervisor does: a journal, then lines; stays until it is killed.
SUPERVISOR = """
import sys, time
from pathlib import Path
from tradewind.logging import spool
base, log, text = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
path = base / log
path.parent.mkdir(parents=True, exist_ok=True)
with path.open("ab", buffering=0) as file:
    if sys.argv[4] == "journal":
        journal = spool.open_journal(base, log, log, path.stat().st_size)
    file.write(text.encode())
    print("ready", flush=True)
    time.sleep(600)
"""

SWEEPER = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from tradewind.logging.config import LogSettings
from tradewind.logging.store import open_store
from tradewind.logging.sweep import sweep
url, base = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
done = sweep(open_store(url), LogSettings(remote_base=url, local_base=Path(base)), min_age_seconds=0)
print(json.dumps([asdict(action) for action in done]))
"""


class Supervisor:
    """A process that writes a log."""

    def __init__(self, base: Path, text: str, log: str = LOG, *, journal: bool = True) -> None:
        command = [sys.executable, "-c", SUPERVISOR, str(base), log, text, "journal" if journal else "none"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


@pytest.fixture
def supervise():
    started = []

    def start(*args: object, **kwargs: bool) -> Supervisor:
        started.append(Supervisor(*args, **kwargs))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for supervisor in started:
        supervisor.kill()


@pytest.fixture
def files(tmp_path) -> Store:
    return open_store(f"file://{tmp_path}/remote")


@pytest.fixture
def settings(tmp_path) -> LogSettings:
    (tmp_path / "local").mkdir()
    return LogSettings(remote_base="memory://unused", local_base=tmp_path / "local", read_block_bytes=1 << 16)


def write(settings: LogSettings, data: bytes, log: str = LOG, *, age: float = 0) -> Path:
    path = settings.local_base / log
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(data)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def session(settings: LogSettings, data: bytes, log: str = LOG, **noted: str) -> spool.Record:
    """A session whose writer is dead."""
    path = settings.local_base / log
    start = path.stat().st_size if path.exists() else 0
    journal = spool.open_journal(settings.local_base, log, log, start)
    write(settings, data, log)
    if noted:
        journal.note(**noted)
    journal.close()
    time.sleep(0.002)
    return journal.record


def stored(store: Store, log: str = LOG) -> list[bytes]:
    """The sessions of a log as a reader sees them."""
    return [
        b"".join(store.read(part.key, part.start, part.size) for part in found.segments)
        for found in layout.sessions(log, store.list(log))
    ]


def outcomes(actions) -> list[str]:
    return [action.outcome for action in actions]


def test_a_killed_supervisors_log_is_stored_and_the_file_emptied(store, settings, supervise):
    supervisor = supervise(settings.local_base, "one\ntwo\n")
    supervisor.kill()
    (action,) = sweep(store, settings)
    assert (action.outcome, action.head, action.bytes, action.reason) == ("uploaded", LOG, 8, "")
    assert stored(store) == [b"one\ntwo\n"]
    assert (settings.local_base / LOG).stat().st_size == 0
    assert list(spool.journals(settings.local_base)) == []
    assert sweep(store, settings) == []


@pytest.mark.parametrize("journal", [True, False])
def test_a_living_supervisors_log_is_not_touched(files, settings, supervise, journal):
    supervise(settings.local_base, "one\n", journal=journal)
    os.utime(settings.local_base / LOG, (1, 1))
    assert sweep(files, settings, min_age_seconds=0) == []
    assert stored(files) == []
    assert (settings.local_base / LOG).read_text() == "one\n"


def test_a_dead_session_is_stored_while_a_later_one_still_writes_the_same_file(files, settings, supervise):
    supervise(settings.local_base, "first\n").kill()
    alive = supervise(settings.local_base, "second\n")
    assert outcomes(sweep(files, settings)) == ["uploaded"]
    assert stored(files) == [b"first\n"]
    assert (settings.local_base / LOG).read_text() == "first\nsecond\n"
    alive.kill()
    os.utime(settings.local_base / LOG, (1, 1))
    # The first session has no journal any more: that it is stored is seen by comparing.
    assert outcomes(sweep(files, settings)) == ["uploaded", "stored"]
    assert stored(files) == [b"first\n", b"second\n"]
    assert (settings.local_base / LOG).stat().st_size == 0


def test_a_session_whose_head_and_parts_are_stored_becomes_one_whole_object(store, settings):
    store.create(LOG, b"0123")
    store.put(layout.part_key(LOG, 4), b"45")
    session(settings, b"0123456789", claim=LOG, head=LOG)
    assert outcomes(sweep(store, settings)) == ["uploaded"]
    assert store.list(LOG) == {LOG: 10}
    assert stored(store) == [b"0123456789"]


def test_an_object_that_a_session_had_begun_is_recognised(store, settings):
    store.create(LOG, b"0123")
    session(settings, b"0123456789", claim=LOG)
    sweep(store, settings)
    assert stored(store) == [b"0123456789"]


@pytest.mark.parametrize("other", [b"another", b"0123456789 and more", b""])
def test_another_sessions_object_under_the_claimed_name_is_kept(store, settings, other):
    store.create(LOG, other)
    record = session(settings, b"0123456789", claim=LOG)
    (action,) = sweep(store, settings)
    assert action.head == layout.session_key(LOG, record.started_ms, record.token)
    assert store.list(LOG)[LOG] == len(other)
    assert not other or store.read(LOG) == other
    assert store.read(action.head) == b"0123456789"


def test_a_later_session_that_has_finished_is_not_stored_twice(files, settings):
    record = session(settings, b"first\n")
    later = session(settings, b"second\n")
    files.create(LOG, b"second\n")
    (settings.local_base / spool.FOLDER / f"{later.token}.jsonl").unlink()
    (action,) = sweep(files, settings)
    assert action.bytes == 6
    assert files.read(layout.session_key(LOG, record.started_ms, record.token)) == b"first\n"
    assert sorted(stored(files)) == [b"first\n", b"second\n"]
    assert (settings.local_base / LOG).stat().st_size == 0


def test_bytes_before_the_first_journal_are_stored_before_the_file_is_emptied(files, settings):
    write(settings, b"of stock Airflow\n")
    session(settings, b"ours\n")
    os.utime(settings.local_base / LOG, (1, 1))
    assert outcomes(sweep(files, settings)) == ["uploaded", "uploaded"]
    assert sorted(stored(files)) == [b"of stock Airflow\n", b"ours\n"]
    assert (settings.local_base / LOG).stat().st_size == 0


def test_a_session_without_a_line_only_loses_its_journal(files, settings):
    session(settings, b"")
    assert outcomes(sweep(files, settings)) == ["empty"]
    assert files.list(LOG) == {}
    assert list(spool.journals(settings.local_base)) == []


def test_stored_parts_of_a_session_whose_file_is_gone_become_one_object(store, settings):
    store.create(LOG, b"0123")
    store.put(layout.part_key(LOG, 4), b"4567")
    session(settings, b"01234567", claim=LOG, head=LOG)
    (settings.local_base / LOG).unlink()
    assert outcomes(sweep(store, settings)) == ["merged"]
    assert store.list(LOG) == {LOG: 8}
    assert stored(store) == [b"01234567"]


def test_stored_parts_with_a_gap_are_kept_as_they_are(files, settings):
    files.create(LOG, b"0123")
    files.put(layout.part_key(LOG, 6), b"67")
    session(settings, b"", claim=LOG, head=LOG)
    (settings.local_base / LOG).unlink()
    assert outcomes(sweep(files, settings)) == ["incomplete"]
    assert files.list(LOG) == {LOG: 4, layout.part_key(LOG, 6): 2}


def test_more_stored_than_local_bytes_are_not_replaced_by_less(files, settings):
    files.create(LOG, b"0123456789")
    session(settings, b"0123", claim=LOG, head=LOG)
    assert outcomes(sweep(files, settings)) == ["merged"]
    assert stored(files) == [b"0123456789"]


def test_a_lost_session_is_told(files, settings):
    session(settings, b"text", claim=LOG, head=LOG)
    (settings.local_base / LOG).unlink()
    assert outcomes(sweep(files, settings)) == ["lost"]


def test_a_file_without_journal_is_stored(store, settings):
    path = write(settings, b"text\n" * 30_000, age=100)
    (action,) = sweep(store, settings)
    assert (action.outcome, action.head) == ("uploaded", LOG)
    assert stored(store) == [b"text\n" * 30_000]
    assert path.stat().st_size == 0
    assert list(spool.journals(settings.local_base)) == []


def test_a_file_without_journal_becomes_a_session_of_its_age_when_the_name_is_taken(files, settings):
    files.create(LOG, b"another\n")
    write(settings, b"text\n", age=5000)
    (action,) = sweep(files, settings)
    assert action.head.startswith(f"{LOG}.")
    assert abs(int(action.head.removeprefix(f"{LOG}.")[:13]) / 1000 - (time.time() - 5000)) < 60
    assert stored(files) == [b"another\n", b"text\n"]


@pytest.mark.parametrize("before", [b"", b"an earlier upload\n"])
def test_a_file_that_is_stored_already_is_only_emptied(store, settings, before):
    store.create(LOG, before + b"text\n")
    path = write(settings, b"text\n", age=100)
    assert outcomes(sweep(store, settings)) == ["stored"]
    assert store.list(LOG) == {LOG: len(before) + 5}
    assert path.stat().st_size == 0


def test_a_young_file_and_files_that_are_no_task_logs_are_left_alone(files, settings):
    write(settings, b"young\n")
    for name in ("dag_processor/x/y.log", "scheduler/x.log", ".tradewind/z.log", "notes.txt", "a/b.logs"):
        write(settings, b"text\n", name, age=100)
    (settings.local_base / "link.log").symlink_to(settings.local_base / "notes.txt")
    assert sweep(files, settings) == []
    assert list(files.walk()) == []


def test_a_triggers_file_without_journal_is_stored_under_its_own_name(files, settings):
    name = f"{LOG}.trigger.7.log"
    write(settings, b"text\n", name, age=100)
    assert sweep(files, replace(settings, include_trigger_logs=False)) == []
    assert [action.head for action in sweep(files, settings)] == [name]


@pytest.mark.parametrize("noted", [True, False])
def test_a_triggers_file_that_was_set_aside_is_stored_under_the_triggers_name_and_deleted(files, settings, noted):
    name = f"{LOG}.trigger.7.log"
    record = session(settings, b"text\n", name)
    aside = f"{name}.{record.token}.done"
    (settings.local_base / name).rename(settings.local_base / aside)
    if noted:
        journal = spool.take_over(settings.local_base / spool.FOLDER / f"{record.token}.jsonl")
        assert journal is not None
        journal.note(path=aside)
        journal.close()
    (action,) = sweep(files, settings)
    assert (action.outcome, action.head, action.path) == ("uploaded", name, aside)
    assert not (settings.local_base / aside).exists()


def test_a_living_triggerers_file_that_was_set_aside_is_not_touched(files, settings, supervise):
    name = f"{LOG}.trigger.7.log"
    supervise(settings.local_base, "text\n", name)
    ((_, record),) = spool.journals(settings.local_base)
    aside = settings.local_base / f"{name}.{record.token}.done"
    (settings.local_base / name).rename(aside)
    os.utime(aside, (1, 1))
    assert sweep(files, settings) == []
    assert aside.read_text() == "text\n"


def test_a_file_that_a_process_has_open_is_stored_but_kept(files, settings):
    record = session(settings, b"text\n")
    with (settings.local_base / LOG).open("rb"):
        (action,) = sweep(files, settings)
    assert action.outcome == "uploaded"
    assert "open" in action.reason
    assert (settings.local_base / LOG).read_bytes() == b"text\n"
    assert record.log == LOG
    assert outcomes(sweep(files, settings, min_age_seconds=0)) == ["stored"]
    assert stored(files) == [b"text\n"]
    assert (settings.local_base / LOG).stat().st_size == 0


def test_local_files_are_deleted_when_the_settings_say_so(files, settings):
    session(settings, b"text\n")
    sweep(files, replace(settings, delete_local_logs=True))
    assert not (settings.local_base / LOG).exists()


def test_a_dry_run_changes_nothing(files, settings):
    session(settings, b"text\n")
    write(settings, b"left\n", "dag_id=z/attempt=1.log", age=100)
    before = {path: path.read_bytes() for path in settings.local_base.rglob("*") if path.is_file()}
    actions = sweep(files, settings, dry_run=True)
    assert [(action.outcome, action.bytes) for action in actions] == [("would-upload", 5), ("would-upload", 5)]
    assert {path: path.read_bytes() for path in settings.local_base.rglob("*") if path.is_file()} == before
    assert list(files.walk()) == []


def test_only_the_folder_asked_for_is_swept_and_keys_stay_relative_to_the_base(files, settings):
    session(settings, b"one\n", "dag_id=a/attempt=1.log")
    session(settings, b"two\n", "dag_id=b/attempt=1.log")
    (action,) = sweep(files, settings, folder=settings.local_base / "dag_id=b")
    assert action.head == "dag_id=b/attempt=1.log"


def test_another_workers_volume_is_a_base_of_its_own(files, settings, tmp_path):
    other = replace(settings, local_base=tmp_path / "volume")
    session(other, b"text\n")
    assert [action.head for action in sweep(files, settings, folder=tmp_path / "volume")] == [LOG]


def test_a_folder_that_does_not_exist_is_refused(files, settings, tmp_path):
    with pytest.raises(LogSettingsError, match="nowhere"):
        sweep(files, settings, folder=tmp_path / "nowhere")
    assert sweep(files, replace(settings, local_base=tmp_path / "nowhere")) == []


def test_a_base_folder_that_is_the_storage_itself_is_refused(settings):
    path = write(settings, b"the only copy\n", age=100)
    with pytest.raises(LogSettingsError, match="remote_base_log_folder"):
        sweep(open_store(f"file://{settings.local_base}"), settings)
    sweep(open_store(f"file://{settings.local_base}/remote"), settings)
    assert stored(open_store(f"file://{settings.local_base}/remote")) == [b"the only copy\n"]
    os.utime(settings.local_base / "remote" / LOG, (1, 1))
    assert sweep(open_store(f"file://{settings.local_base}/remote"), settings) == []
    assert path.stat().st_size == 0


def test_a_storage_that_refuses_keeps_everything_and_the_next_sweep_stores_it(settings, tmp_path):
    remote = tmp_path / "remote"
    remote.mkdir()
    blocked = "dag_id=a/attempt=1.log"
    (remote / "dag_id=a").write_text("a file where a folder should be")
    session(settings, b"one\n", blocked)
    session(settings, b"two\n", "dag_id=b/attempt=1.log")
    write(settings, b"three\n", "dag_id=a/attempt=2.log", age=100)
    store = open_store(f"file://{remote}")
    actions = sweep(store, settings)
    assert outcomes(actions) == ["failed", "uploaded", "failed"]
    assert "dag_id=a/attempt=1.log" in actions[0].reason
    assert (settings.local_base / blocked).read_bytes() == b"one\n"
    (remote / "dag_id=a").unlink()
    sweep(store, settings)
    assert stored(store, blocked) == [b"one\n"]
    assert stored(store, "dag_id=a/attempt=2.log") == [b"three\n"]


def test_a_deleted_bucket_keeps_everything_until_it_is_back(settings, s3):
    bucket = f"logs-{secrets.token_hex(4)}"
    store = s3.store(bucket)
    session(settings, b"text\n")
    (action,) = sweep(store, settings)
    assert action.outcome == "failed"
    assert s3.secret not in action.reason
    assert (settings.local_base / LOG).read_bytes() == b"text\n"
    s3.client.create_bucket(Bucket=bucket)
    assert outcomes(sweep(store, settings)) == ["uploaded"]
    assert stored(store) == [b"text\n"]


def test_journals_that_cannot_be_trusted_do_no_harm(files, settings, tmp_path):
    outside = tmp_path / "private.log"
    outside.write_text("private")
    session(settings, b"text\n")
    folder = settings.local_base / spool.FOLDER
    fields = {"token": "aa", "log": LOG, "path": "../private.log", "start": 0, "started_ms": 1}
    good = {**fields, "path": "x.log"}
    texts = [
        fields,
        {**fields, "path": str(outside)},
        {**good, "start": "x"},
        {**good, "start": -5},
        {**good, "head": "other.log"},
        {**good, "log": "../../x.log"},
        5,
        None,
    ]
    for number, text in enumerate(texts):
        (folder / f"{number}.jsonl").write_text(json.dumps(text) + "\n")
    (folder / "9.jsonl").write_bytes(b"\xff\x00")
    (folder / "10.jsonl").write_text("")
    assert outcomes(sweep(files, settings)) == ["uploaded"]
    assert [entry.key for entry in files.walk()] == [LOG]
    assert outside.read_text() == "private"


def test_two_sweepers_at_once_store_everything_once(settings, tmp_path):
    logs = [f"dag_id=a/attempt={number}.log" for number in range(1, 41)]
    for number, log in enumerate(logs):
        if number % 2:
            write(settings, f"{log}\n".encode() * 50, log, age=100)
        else:
            session(settings, f"{log}\n".encode() * 50, log)
    url = f"file://{tmp_path}/remote"
    command = [sys.executable, "-c", SWEEPER, url, str(settings.local_base)]
    sweepers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for sweeper in sweepers:
        assert sweeper.stdout
        assert sweeper.stdout.readline() == "ready\n"
    for sweeper in sweepers:
        assert sweeper.stdin
        sweeper.stdin.write("go\n")
        sweeper.stdin.flush()
    done = [json.loads(sweeper.communicate(timeout=60)[0]) for sweeper in sweepers]
    assert sorted(action["log"] for actions in done for action in actions) == sorted(logs)
    store = open_store(url)
    assert sorted(entry.key for entry in store.walk()) == sorted(logs)
    for log in logs:
        assert stored(store, log) == [f"{log}\n".encode() * 50]
        assert (settings.local_base / log).stat().st_size == 0


def test_a_sweeper_that_is_killed_midway_is_finished_by_the_next(settings, tmp_path):
    url = f"file://{tmp_path}/remote"
    logs = [f"dag_id=a/attempt={number}.log" for number in range(1, 61)]
    for number, log in enumerate(logs):
        data = os.urandom(300_000)
        if number % 2:
            write(settings, data, log, age=100)
        else:
            session(settings, data, log)
    expected = {log: (settings.local_base / log).read_bytes() for log in logs}
    for delay in (0.005, 0.02, 0.05):
        sweeper = subprocess.Popen(
            [sys.executable, "-c", SWEEPER, url, str(settings.local_base)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert sweeper.stdin
        assert sweeper.stdout
        sweeper.stdout.readline()
        sweeper.stdin.write("go\n")
        sweeper.stdin.flush()
        time.sleep(delay)
        sweeper.kill()
        sweeper.communicate()
    store = open_store(url)
    sweep(store, settings, min_age_seconds=0)
    assert {log: stored(store, log) for log in logs} == {log: [data] for log, data in expected.items()}
    assert all((settings.local_base / log).stat().st_size == 0 for log in logs)


def test_a_disk_that_cannot_be_written_is_refused(files, settings):
    (settings.local_base / ".tradewind").write_text("a file where a folder should be")
    with pytest.raises(LogSettingsError, match="can be written"):
        sweep(files, settings)
    shutil.rmtree(settings.local_base)


def test_progress_is_told(files, settings):
    session(settings, b"x" * 100_000)
    told: list[tuple[str, int, int]] = []
    sweep(files, settings, progress=lambda *values: told.append(values))
    assert told[-1] == (LOG, 100_000, 100_000)
