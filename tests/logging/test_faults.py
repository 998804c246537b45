# SPDX-License-Identifier: Apache-2.0
"""Storage errors, cut connections, dead credentials, full disks, wrong clocks: no byte is lost, none is there twice."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from support.airflow_server import wait_for
from support.faulty_proxy import FaultyProxy
from support.object_storage import S3Server, running_s3
from support.recording import LOG, Recording, s3_options, stored

from tradewind.logging import layout, maintenance, spool
from tradewind.logging.config import LogSettings
from tradewind.logging.exceptions import StorageError
from tradewind.logging.reader import RemoteReader
from tradewind.logging.store import Store, open_store
from tradewind.logging.sweep import sweep

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        server.create_bucket("task-logs")
        yield server


@pytest.fixture
def base() -> str:
    """A place in the bucket that no other test uses."""
    return f"s3://task-logs/{secrets.token_hex(4)}"


@pytest.fixture
def store(s3, base) -> Store:
    return open_store(base, s3_options(s3))


@pytest.fixture
def proxy(s3) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3.port) as found:
        yield found


def start(tmp_path: Path, base: str, s3: S3Server, proxy: FaultyProxy, **settings: object) -> Recording:
    options = s3_options(s3, proxy.url, read_timeout=20)
    return Recording(tmp_path / "logs", remote_base=base, storage_options=options, **settings)


def assert_finished(recording: Recording, store: Store, text: bytes) -> None:
    wait_for(lambda: recording.path.stat().st_size == 0, what="the local file to be given up", timeout_seconds=60)
    assert store.list(LOG) == {LOG: len(text)}
    assert store.read(LOG) == text
    assert list((recording.io.settings.local_base / spool.FOLDER).iterdir()) == []


def uploads(s3: S3Server, base: str) -> list[str]:
    """Multipart uploads that nobody finished or gave up."""
    prefix = base.removeprefix("s3://task-logs/")
    found = s3.client().list_multipart_uploads(Bucket="task-logs").get("Uploads", [])
    return [upload["Key"] for upload in found if upload["Key"].startswith(prefix)]


# ---- errors of the storage


@pytest.mark.parametrize("kind", ["InternalError", "SlowDown", "cut"])
def test_a_burst_of_errors_delays_lines_and_changes_none(s3, store, base, proxy, tmp_path, kind):
    recording = start(tmp_path, base, s3, proxy)
    proxy.next(4, kind, method="PUT")
    recording.write(20)
    wait_for(lambda: len(proxy.failed) == 4, what="the refusals", timeout_seconds=60)
    text = recording.write(20)
    wait_for(lambda: stored(store) == text, what="the lines", timeout_seconds=60)
    proxy.next(2, kind)
    text = recording.write(20)
    recording.end()
    assert_finished(recording, store, text)


def test_an_answer_that_is_lost_makes_no_second_object(s3, store, base, proxy, tmp_path):
    recording = start(tmp_path, base, s3, proxy)
    # The object is created; the client does not hear of it, tries again, and is told that it exists.
    proxy.next(1, "lose", method="PUT")
    text = recording.write(20)
    wait_for(lambda: stored(store) == text, what="the lines", timeout_seconds=60)
    assert ("lose", "PUT") in {(kind, method) for kind, method, _ in proxy.failed}
    assert list(store.list(LOG)) == [LOG]
    text = recording.write(20)
    recording.end()
    assert_finished(recording, store, text)


@pytest.mark.parametrize(
    ("kind", "method", "query"),
    [("cut", "PUT", "partNumber=2"), ("InternalError", "POST", "uploadId=")],
)
def test_a_large_upload_that_breaks_off_is_never_taken_for_whole(s3, store, base, proxy, tmp_path, kind, method, query):
    recording = start(tmp_path, base, s3, proxy, part_bytes=1 << 20, upload_timeout_seconds=1.0)
    proxy.next(1000, kind, method=method, query=query)
    text = recording.write(1200, 10_000)
    wait_for(lambda: stored(store) == text, what="the parts", timeout_seconds=60)
    recording.end()
    wait_for(lambda: recording.io.shipper.stats.failures, what="a broken upload", timeout_seconds=60)
    # The parts are still what a reader gets, and the local file is still there.
    assert stored(store) == text
    assert recording.path.read_bytes() == text
    proxy.heal()
    assert_finished(recording, store, text)
    assert uploads(s3, base) == []


def test_a_storage_that_never_answers_delays_the_end_by_the_timeout_only(s3, store, base, proxy, tmp_path):
    recording = start(tmp_path, base, s3, proxy, upload_timeout_seconds=1.5)
    text = recording.write(20)
    wait_for(lambda: stored(store) == text, what="the lines", timeout_seconds=60)
    proxy.next(1000, "hang")
    seen = len(proxy.failed)
    recording.write(1)
    wait_for(lambda: len(proxy.failed) > seen, what="a request without an answer", timeout_seconds=30)
    begin = time.monotonic()
    text = recording.write(5000)
    assert time.monotonic() - begin < 10
    assert 1.4 < recording.end() < 8
    assert recording.path.read_bytes() == text
    assert len(list((tmp_path / "logs" / spool.FOLDER).glob("*.jsonl"))) == 1


def test_a_storage_that_hangs_before_the_last_step_of_an_upload_delays_the_end_no_longer(
    s3, store, base, proxy, tmp_path
):
    recording = start(tmp_path, base, s3, proxy, part_bytes=1 << 20, upload_timeout_seconds=1.5)
    proxy.next(1000, "hang", method="POST", query="uploadId=")
    text = recording.write(700, 10_000)
    wait_for(lambda: stored(store) == text, what="the parts", timeout_seconds=60)
    assert recording.end() < 20
    assert recording.path.read_bytes() == text
    assert stored(store) == text


def test_a_process_ends_though_its_storage_never_answers(s3, base, proxy, tmp_path):
    proxy.next(1000, "hang")
    code = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from support.recording import Recording
recording = Recording(Path({str(tmp_path / "logs")!r}), remote_base={base!r}, upload_timeout_seconds=1.0,
    storage_options={s3_options(s3, proxy.url)!r})
recording.write(20)
recording.end()
print("ended", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        assert "ended\n" in iter(process.stdout.readline, "")
        # The request itself is given up after 60 s only.
        assert process.wait(25) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert len((tmp_path / "logs" / LOG).read_bytes().splitlines()) == 20


# ---- credentials


def test_expired_credentials_are_replaced_by_the_connections_new_ones(s3, store, base, proxy, tmp_path, monkeypatch):
    uri = f"aws://{{}}:secret@/?endpoint_url={quote(proxy.url, safe='')}&region_name={s3.region}"
    monkeypatch.setenv("AIRFLOW_CONN_LOGS", uri.format("first-key"))
    recording = Recording(tmp_path / "logs", remote_base=base, conn_id="logs")
    text = recording.write(20)
    wait_for(lambda: stored(store) == text, what="the first lines", timeout_seconds=60)
    proxy.next(100_000, "ExpiredToken", credential="first-key")
    recording.write(20)
    wait_for(lambda: recording.io.shipper.stats.failures, what="a refusal", timeout_seconds=60)
    monkeypatch.setenv("AIRFLOW_CONN_LOGS", uri.format("second-key"))
    # Airflow asks for them whenever it opens a log.
    assert recording.io.processors
    text = recording.write(20)
    wait_for(lambda: stored(store) == text, what="all lines", timeout_seconds=60)
    recording.end()
    assert_finished(recording, store, text)
    assert "secret" not in (recording.io.shipper.stats.last_error or "")


def test_expired_credentials_of_the_machine_are_read_again(s3, store, base, proxy, tmp_path, monkeypatch):
    file = tmp_path / "credentials"
    text_of = "[default]\naws_access_key_id = {}\naws_secret_access_key = secret\n"
    file.write_text(text_of.format("first-key"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    options = s3_options(s3, proxy.url)
    del options["key"], options["secret"]
    recording = Recording(tmp_path / "logs", remote_base=base, storage_options=options)
    text = recording.write(20)
    wait_for(lambda: stored(store) == text, what="the first lines", timeout_seconds=60)
    proxy.next(100_000, "ExpiredToken", credential="first-key")
    file.write_text(text_of.format("second-key"))
    text = recording.write(20)
    recording.end()
    assert_finished(recording, store, text)


# ---- full disks


def run_with_little_room(tmp_path: Path, code: str) -> dict[str, object]:
    """Run code in a process in which writes to files can be refused; returns what it prints as JSON.

    `room(n)` lets each file have n bytes at most from now on, `room()` any number: RLIMIT_FSIZE, so that a write
    fails as on a full disk, with EFBIG instead of ENOSPC.
    """
    head = f"""
import json, resource, sys, time, warnings
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from support.airflow_server import wait_for
from support.recording import LOG, Recording, stored
from tradewind.logging import spool
from tradewind.logging.store import open_store
from tradewind.logging.sweep import sweep
tmp_path = Path({str(tmp_path)!r})
MOST = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
def room(size=MOST):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, MOST))
def journals():
    return len(list((tmp_path / "logs" / spool.FOLDER).glob("*")))
"""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    *said, result = done.stdout.splitlines()
    found: dict[str, object] = json.loads(result)
    return {**found, "warnings": "\n".join([*said, done.stderr])}


def test_a_journal_that_cannot_be_written_is_written_when_there_is_room(tmp_path):
    found = run_with_little_room(
        tmp_path,
        """
store = open_store("memory://full/logs")
recording = Recording(tmp_path / "logs", remote_base="memory://full/logs")
room(100)
recording.write(1)
time.sleep(1)
before = journals(), store.list(LOG)
room()
text = recording.write(5)
wait_for(lambda: stored(store) == text, what="the lines", timeout_seconds=20)
during = journals()
recording.end()
print(json.dumps({"before": before, "during": during, "after": journals(), "same": store.read(LOG) == text,
    "local": recording.path.stat().st_size}))
""",
    )
    assert {**found, "warnings": ""} == {
        "before": [0, {}],
        "during": 1,
        "after": 0,
        "same": True,
        "local": 0,
        "warnings": "",
    }
    assert str(found["warnings"]).count("journal") == 1, found["warnings"]


@pytest.mark.parametrize("lines", [1, 900])
def test_a_log_whose_journal_cannot_be_written_is_sent_whole_at_the_end(tmp_path, lines):
    found = run_with_little_room(
        tmp_path,
        f"""
store = open_store("memory://full/logs")
(tmp_path / "logs").mkdir()
(tmp_path / "logs" / ".tradewind").mkdir()
# The folder's place is taken: no journal can be made, whatever its size.
(tmp_path / "logs" / spool.FOLDER).write_bytes(b"")
recording = Recording(tmp_path / "logs", remote_base="memory://full/logs", part_bytes=1 << 16)
text = recording.write({lines})
time.sleep(0.8)
before = store.list(LOG)
recording.end()
print(json.dumps({{"before": before, "same": stored(store) == text, "objects": len(store.list(LOG)),
    "local": recording.path.stat().st_size}}))
""",
    )
    assert {**found, "warnings": ""} == {"before": {}, "same": True, "objects": 1, "local": 0, "warnings": ""}


def test_a_local_log_that_cannot_grow_is_sent_as_far_as_it_was_written(tmp_path):
    found = run_with_little_room(
        tmp_path,
        """
store = open_store("memory://full/logs")
recording = Recording(tmp_path / "logs", remote_base="memory://full/logs")
text = recording.write(20)
wait_for(lambda: stored(store) == text, what="the lines", timeout_seconds=20)
room(len(text) + 10)
refused = 0
for _ in range(3):
    try:
        recording.write(1)
    except OSError:
        refused += 1
text = recording.path.read_bytes()
# The file's own buffer still has what the disk refused; closing it is not ours.
recording.io.upload(LOG)
print(json.dumps({"refused": refused, "same": stored(store) == text, "local": recording.path.stat().st_size}))
""",
    )
    assert found["refused"] == 3
    assert found["same"] is True
    assert found["local"] == 0


def test_a_full_storage_folder_keeps_the_local_file_and_no_half_object(tmp_path):
    found = run_with_little_room(
        tmp_path,
        """
url = f"file://{tmp_path}/remote"
store = open_store(url)
recording = Recording(tmp_path / "logs", remote_base=url, upload_timeout_seconds=0.5, part_bytes=1 << 20,
    first_flush_seconds=3600, flush_interval_seconds=3600)
text = recording.write(300, 1000)
room(100_000)
recording.end()
kept = recording.path.read_bytes() == text
names = sorted(entry.key for entry in store.walk())
room()
wait_for(lambda: stored(store) == text, what="the lines", timeout_seconds=40)
wait_for(lambda: recording.path.stat().st_size == 0, what="the local file", timeout_seconds=20)
print(json.dumps({"kept": kept, "names": names, "after": store.list(LOG), "size": len(text)}))
""",
    )
    assert found["kept"] is True
    assert found["names"] == []
    assert found["after"] == {LOG: found["size"]}


def test_a_sweep_onto_a_full_disk_keeps_everything_and_the_next_one_stores_it(tmp_path):
    found = run_with_little_room(
        tmp_path,
        """
from tradewind.logging.config import LogSettings
url = f"file://{tmp_path}/remote"
store = open_store(url)
local = tmp_path / "logs" / LOG
local.parent.mkdir(parents=True)
text = b"a line of a process that died\\n" * 10_000
local.write_bytes(text)
settings = LogSettings(remote_base=url, local_base=tmp_path / "logs")
outcomes = []
for size in (100_000, 100, MOST):
    room(size)
    outcomes += [action.outcome for action in sweep(store, settings, min_age_seconds=0)]
    kept = local.stat().st_size
room()
print(json.dumps({"outcomes": outcomes, "kept": kept, "after": store.list(LOG), "same": stored(store) == text}))
""",
    )
    assert found["outcomes"] == ["failed", "failed", "uploaded"]
    assert found["kept"] == 0
    assert found["after"] == {LOG: 300_000}
    assert found["same"] is True


# ---- clocks


def test_sessions_of_a_clock_that_jumped_back_keep_their_lines_and_their_order(tmp_path):
    store = open_store(f"file://{tmp_path}/remote")
    heads = [LOG, *(layout.session_key(LOG, millis, "3f9a") for millis in (1_900_000_000_000, 1_000_000_000_000, 0))]
    expected = []
    for number, head in enumerate(heads):
        # Inside a session the clock jumps back, too.
        times = [f"20{40 - 10 * number}-01-01T00:00:{second:02d}.000000Z" for second in (30, 31, 5, 6)]
        lines = [json.dumps({"timestamp": at, "event": f"{number}/{i}"}) for i, at in enumerate(times)]
        store.put(head, "".join(f"{line}\n" for line in lines).encode())
        expected.append([f"{number}/{i}" for i in range(4)])
    settings = LogSettings(remote_base=f"file://{tmp_path}/remote", local_base=tmp_path / "logs")
    _, streams = RemoteReader(store, settings).stream(LOG)
    events = [json.loads(line)["event"] for stream in streams for line in stream if '"timestamp"' in line]
    assert sorted(events) == sorted(event for session in expected for event in session)
    for session in expected:
        assert [event for event in events if event in session] == session


def test_sessions_that_began_before_their_predecessors_are_swept_each_to_its_own_object(tmp_path):
    url = f"file://{tmp_path}/remote"
    store, logs = open_store(url), tmp_path / "logs"
    local = logs / LOG
    local.parent.mkdir(parents=True)
    texts = [b"first\n", b"second\n", b"third\n"]
    code = """
import sys, time
from pathlib import Path
now = time.time() - float(sys.argv[4])
time.time = lambda: now
from tradewind.logging import spool
journal = spool.open_journal(Path(sys.argv[1]), sys.argv[2], sys.argv[2], int(sys.argv[3]))
"""
    # Each session's machine thinks that it is a day earlier than the one before; the last one lives before 1970.
    for back, text in zip((0, 86400, 10**10), texts, strict=True):
        start_at = local.stat().st_size if local.exists() else 0
        with local.open("ab") as file:
            file.write(text)
        subprocess.run([sys.executable, "-c", code, logs, LOG, str(start_at), str(back)], check=True, timeout=60)
    settings = LogSettings(remote_base=url, local_base=logs)
    assert {action.outcome for action in sweep(store, settings, min_age_seconds=0)} == {"uploaded"}
    sessions = layout.sessions(LOG, store.list(LOG))
    assert sorted(store.read(session.head) for session in sessions) == sorted(texts)
    assert local.stat().st_size == 0


@pytest.mark.parametrize("days", [-4000, 4000])
def test_a_file_of_a_wrong_clock_is_swept(tmp_path, days):
    url = f"file://{tmp_path}/remote"
    store, local = open_store(url), tmp_path / "logs" / LOG
    local.parent.mkdir(parents=True)
    local.write_bytes(b"a line\n")
    then = time.time() + days * 86400
    os.utime(local, (then, then))
    settings = LogSettings(remote_base=url, local_base=tmp_path / "logs")
    assert [action.outcome for action in sweep(store, settings)] == ["uploaded"]
    assert store.read(LOG) == b"a line\n"


def test_objects_of_the_future_are_neither_deleted_nor_compacted_nor_called_damaged(tmp_path):
    store = open_store(f"file://{tmp_path}/remote")
    store.put(LOG, b"0123")
    store.put(layout.part_key(LOG, 8), b"89")
    then = time.time() + 400 * 86400
    for key in (LOG, layout.part_key(LOG, 8)):
        os.utime(store.path(key), (then, then))
    before = store.list(LOG)
    assert maintenance.retention(store, 1) == []
    assert maintenance.compact(store) == []
    assert maintenance.fsck(store, repair=True) == []
    assert store.list(LOG) == before


# ---- two processes, two disks

WRITE = """
import sys, time
sys.path.insert(0, sys.argv[1])
import json
from pathlib import Path
from support.recording import Recording
recording = Recording(Path(sys.argv[2]), **json.loads(sys.argv[3]), part_bytes=1 << 16, flush_interval_seconds=0.05,
    first_flush_seconds=0.05, max_puts_per_second=1e6)
print("begun", flush=True)
for _ in range(12):
    recording.write(200, 200)
    # Long enough to be compacted in between, or just then.
    time.sleep(0.3)
Path(sys.argv[2] + ".copy").write_bytes(recording.write(1))
recording.end()
"""


def test_two_processes_on_two_disks_that_write_one_attempt_keep_their_lines_apart(tmp_path):
    url = f"file://{tmp_path}/remote"
    settings = json.dumps({"remote_base": url})
    names = ("one", "two")
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE, TESTS, tmp_path / name, settings], stdout=subprocess.DEVNULL)
        for name in names
    ]
    try:
        assert [writer.wait(100) for writer in writers] == [0, 0]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    store = open_store(url)
    found = [store.read(key) for key in store.list(LOG)]
    assert sorted(found) == sorted((tmp_path / f"{name}.copy").read_bytes() for name in names)


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_compacting_what_another_machine_still_writes_loses_and_repeats_nothing(s3, base, tmp_path, kind):
    url = base if kind == "s3" else f"file://{tmp_path}/remote"
    options = s3_options(s3) if kind == "s3" else {}
    settings = json.dumps({"remote_base": url, "storage_options": options, "upload_timeout_seconds": 60})
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE, TESTS, tmp_path / "other", settings], stdout=subprocess.PIPE, text=True
    )
    store = open_store(url, options)
    compacted = 0
    try:
        assert writer.stdout
        assert writer.stdout.readline() == "begun\n"
        while writer.poll() is None:
            # No minimal age: everything that a real one makes rare happens here all the time.
            done = maintenance.compact(store, min_age_seconds=0)
            compacted += sum(row.outcome == "compacted" for row in done)
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()  # type: ignore[union-attr]
    assert writer.returncode == 0
    assert compacted
    maintenance.compact(store, min_age_seconds=0)
    text = (tmp_path / "other.copy").read_bytes()
    assert stored(store) == text
    assert store.list(LOG) == {LOG: len(text)}


def test_a_session_that_is_finished_while_another_machine_compacts_it_stays_whole(s3, store, base, proxy, tmp_path):
    options = s3_options(s3)
    recording = Recording(tmp_path / "logs", remote_base=base, storage_options=options, part_bytes=1 << 20)
    text = recording.write(700, 10_000)
    wait_for(lambda: stored(store) == text, what="the parts", timeout_seconds=60)
    # The other machine has read all of it, and is sending the first 5 MiB of what it put together.
    proxy.next(1, "hold", method="PUT", query="partNumber=1")
    done: list[maintenance.Compacted] = []
    other = open_store(base, s3_options(s3, proxy.url))
    compaction = threading.Thread(target=lambda: done.extend(maintenance.compact(other, min_age_seconds=0)))
    compaction.start()
    wait_for(lambda: proxy.failed, what="the other machine's upload", timeout_seconds=60)
    text = recording.write(100, 10_000)
    recording.end()
    assert_finished(recording, store, text)
    proxy.heal()
    compaction.join(60)
    assert [row.outcome for row in done] == ["failed"]
    assert store.list(LOG) == {LOG: len(text)}
    assert store.read(LOG) == text
    assert uploads(s3, base) == []


def test_a_file_whose_confirmation_fails_is_not_published(tmp_path):
    store = open_store(f"file://{tmp_path}/remote")
    store.put(LOG, b"0123")
    store.put(layout.part_key(LOG, 4), b"45")
    whole = tmp_path / "whole"
    whole.write_bytes(b"0123456789")
    local = tmp_path / "less"
    local.write_bytes(b"012345")

    def finish_meanwhile() -> None:
        sizes = store.list(LOG)
        store.put_file(LOG, whole)
        if store.list(LOG) != sizes:
            raise StorageError("changed")

    with pytest.raises(StorageError, match="changed"):
        store.put_file(LOG, local, confirm=finish_meanwhile)
    assert store.read(LOG) == b"0123456789"
