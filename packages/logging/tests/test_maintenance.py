# SPDX-License-Identifier: Apache-2.0
"""Tidying loses no byte, whatever interrupts it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tradewind.logging import layout, maintenance
from tradewind.logging.exceptions import LogSettingsError, StorageError
from tradewind.logging.store import Store, open_store

LOG = "dag_id=a/run_id=b/attempt=1.log"
LATER = layout.session_key(LOG, 1700000000000, "3f9a")


@pytest.fixture
def files(tmp_path) -> Store:
    return open_store(f"file://{tmp_path}/remote")


def age(store: Store, key: str, days: float) -> None:
    then = time.time() - days * 86400
    os.utime(Path(store.path(key)), (then, then))


def stored(store: Store) -> list[bytes]:
    return [
        b"".join(store.read(part.key, part.start, part.size) for part in found.segments)
        for found in layout.sessions(LOG, store.list(LOG))
    ]


def put_session(store: Store, head: str, *parts: bytes) -> bytes:
    offset = 0
    for part in parts:
        store.put(layout.part_key(head, offset), part)
        offset += len(part)
    return b"".join(parts)


def test_sessions_of_many_objects_get_one(store):
    expected = [put_session(store, LOG, b"0123", b"45", b"6789"), put_session(store, LATER, b"abc", b"de")]
    done = maintenance.compact(store, min_age_seconds=0)
    assert [(row.head, row.objects, row.bytes, row.outcome) for row in done] == [
        (LOG, 3, 10, "compacted"),
        (LATER, 2, 5, "compacted"),
    ]
    assert store.list(LOG) == {LOG: 10, LATER: 5}
    assert stored(store) == expected
    assert maintenance.compact(store, min_age_seconds=0) == []


def test_a_compaction_that_stopped_before_deleting_is_finished(store):
    put_session(store, LOG, b"0123", b"45", b"6789")
    store.put(LOG, b"0123456789")
    assert stored(store) == [b"0123456789"]
    maintenance.compact(store, min_age_seconds=0)
    assert store.list(LOG) == {LOG: 10}


def test_a_session_larger_than_one_block_keeps_its_bytes(files):
    parts = [os.urandom(size) for size in (5 << 20, 4 << 20, 3)]
    expected = put_session(files, LOG, *parts)
    maintenance.compact(files, min_age_seconds=0)
    assert stored(files) == [expected]


def test_young_held_and_incomplete_sessions_are_not_compacted(files):
    put_session(files, LOG, b"0123", b"45")
    before = files.list(LOG)
    assert maintenance.compact(files, min_age_seconds=3600) == []
    assert maintenance.compact(files, min_age_seconds=0, held=[LOG]) == []
    files.put(layout.part_key(LOG, 20), b"x")
    assert [row.outcome for row in maintenance.compact(files, min_age_seconds=0)] == ["skipped"]
    assert files.list(LOG) == {**before, layout.part_key(LOG, 20): 1}


def test_a_session_with_gaps_cannot_be_merged(files):
    files.put(layout.part_key(LOG, 20), b"x")
    session, _ = maintenance.find_session(files, LOG)
    assert session is not None
    with pytest.raises(ValueError, match="gaps"):
        maintenance.merge(files, session)


def test_a_session_that_its_writer_finished_meanwhile_is_not_replaced_by_less(files):
    put_session(files, LOG, b"0123", b"45")
    stale, _ = maintenance.find_session(files, LOG)
    assert stale is not None
    files.put(LOG, b"0123456789")
    files.delete([layout.part_key(LOG, 4)])
    with pytest.raises(StorageError):
        maintenance.merge(files, stale)
    assert stored(files) == [b"0123456789"]


def test_a_storage_that_refuses_keeps_every_byte(tmp_path):
    store = open_store(f"file://{tmp_path}/remote")
    put_session(store, LOG, b"0123", b"45")
    blocker = Path(store.path(layout.part_key(LOG, 4)))
    content = blocker.read_bytes()
    blocker.unlink()
    blocker.mkdir()
    put_session(store, LATER, b"abc", b"de")
    done = {row.head: row.outcome for row in maintenance.compact(store, min_age_seconds=0)}
    assert done == {LATER: "compacted"}
    assert content == b"45"
    assert store.read(LOG) == b"0123"


def test_logs_are_deleted_when_every_object_is_older(files):
    put_session(files, LOG, b"0123", b"45")
    put_session(files, LATER, b"abc")
    young = "dag_id=a/run_id=b/attempt=10.log"
    put_session(files, young, b"0", b"1")
    for key in (LOG, layout.part_key(LOG, 4), young):
        age(files, key, 40)
    assert maintenance.retention(files, 30) == []
    age(files, LATER, 31)
    for dry_run, outcome in ((True, "expired"), (False, "deleted")):
        assert [
            (row.log, row.objects, row.bytes, row.outcome) for row in maintenance.retention(files, 30, dry_run=dry_run)
        ] == [(LOG, 3, 9, outcome)]
    assert sorted(entry.key for entry in files.walk()) == [young, layout.part_key(young, 1)]


@pytest.mark.parametrize(
    "key",
    [
        "data/table.parquet",
        "dag_id=a/attempt=1.log.gz",
        "dag_id=a/notes.txt",
        "a/.attempt=1.log",
        ".tradewind/x.log",
        "a/logs",
    ],
)
def test_what_is_not_a_log_is_never_deleted(files, key):
    files.put(key, b"x")
    age(files, key, 400)
    assert maintenance.retention(files, 1) == []
    assert [entry.key for entry in files.walk()] == [key]


def test_a_log_that_somebody_writes_is_kept(files):
    files.put(LOG, b"x")
    age(files, LOG, 400)
    assert maintenance.retention(files, 1, held=[LATER]) == []


@pytest.mark.parametrize("days", [0, -1, float("nan")])
def test_no_days_are_refused(files, days):
    with pytest.raises(LogSettingsError, match="retention_days"):
        maintenance.retention(files, days)


def test_new_logs_are_kept_on_every_storage(store):
    put_session(store, LOG, b"0123", b"45")
    assert maintenance.retention(store, 0.001) == []


def test_fsck_finds_nothing_in_sound_logs(store):
    put_session(store, LOG, b"0123", b"45")
    put_session(store, LATER, b"0123")
    assert maintenance.fsck(store, min_age_seconds=0) == []


def test_fsck_finds_and_repairs(store):
    put_session(store, LOG, b"0123", b"45")
    store.put(layout.part_key(LOG, 10), b"x")
    store.put(layout.part_key(LOG, 1), b"12")
    store.put(layout.part_key(LATER, 5), b"orphan")
    empty = "dag_id=e/attempt=1.log"
    store.put(empty, b"")
    expected = {
        ("truncated", "error", LOG),
        ("duplicated", "warning", layout.part_key(LOG, 1)),
        ("orphan", "error", LATER),
        ("empty", "warning", empty),
    }
    assert {(f.id, f.severity, f.key) for f in maintenance.fsck(store, min_age_seconds=0)} == expected
    repaired = {(f.id, f.severity) for f in maintenance.fsck(store, repair=True, min_age_seconds=0)}
    assert repaired == {("truncated", "error"), ("duplicated", "info"), ("orphan", "error"), ("empty", "info")}
    left = {f.id for f in maintenance.fsck(store, min_age_seconds=0)}
    assert left == {"truncated", "orphan"}
    assert stored(store) == [b"012345x", b"orphan"]


def test_fsck_leaves_young_and_held_sessions_alone(files):
    files.put(layout.part_key(LOG, 5), b"orphan")
    assert maintenance.fsck(files) == []
    assert maintenance.fsck(files, min_age_seconds=0, held=[LOG]) == []


def test_fsck_deletes_old_temporary_files_of_a_folder(files):
    files.put(LOG, b"x")
    old, young = (f"dag_id=a/run_id=b/.attempt=1.log.{token}.tmp" for token in ("0badcafe", "deadbeef"))
    for key in (old, young):
        files.put(key, b"half")
    age(files, old, 1)
    assert [(f.id, f.key) for f in maintenance.fsck(files)] == [("temporary", old)]
    maintenance.fsck(files, repair=True)
    assert sorted(entry.key for entry in files.walk()) == [young, LOG]


def test_a_storage_that_cannot_be_listed_is_a_storage_error(tmp_path):
    store = open_store("s3://logs", filesystem=_Refusing())
    for work in (maintenance.compact, maintenance.fsck, lambda s: maintenance.retention(s, 1)):
        with pytest.raises(StorageError):
            work(store)


class _Refusing:
    """A file system of a storage that answers nothing."""

    def find(self, *_args: object, **_kwargs: object) -> None:
        raise ConnectionRefusedError(111, "refused")
