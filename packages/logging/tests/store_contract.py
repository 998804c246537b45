# SPDX-License-Identifier: Apache-2.0
"""What every storage promises; run for memory, a folder and S3 here, for Google and Azure in `tests/logging`."""

from __future__ import annotations

import os
import threading
import time

import pytest

from tradewind.logging.exceptions import StorageError

LOG = "dag_id=a/run_id=b/attempt=1.log"


class StoreContract:
    """Tests over a fixture `store`, an empty one for each."""

    def test_creating_an_object_that_exists_changes_nothing(self, store):
        assert store.create(LOG, b"first")
        assert not store.create(LOG, b"second")
        assert store.read(LOG) == b"first"

    def test_one_of_many_creators_wins(self, store):
        start = threading.Barrier(6)
        winners = []

        def create(number: int) -> None:
            start.wait()
            if store.create(LOG, b"%d" % number):
                winners.append(number)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) == 1
        assert store.read(LOG) == b"%d" % winners[0]
        assert store.list(LOG) == {LOG: 1}

    def test_put_replaces_the_whole_object(self, store):
        store.put(LOG, b"a longer first text")
        store.put(LOG, b"short")
        assert store.read(LOG) == b"short"
        assert store.list(LOG) == {LOG: 5}

    def test_put_file_takes_the_bytes_between_start_and_end(self, store, tmp_path):
        file = tmp_path / "local.log"
        file.write_bytes(b"0123456789")
        for start, end, expected in (
            (0, None, b"0123456789"),
            (3, 7, b"3456"),
            (8, None, b"89"),
            (0, 99, b"0123456789"),
        ):
            store.put_file(LOG, file, start, end)
            assert store.read(LOG) == expected

    def test_put_file_sends_a_file_of_many_blocks_and_tells_its_progress(self, store, tmp_path):
        file = tmp_path / "local.log"
        block = os.urandom(1 << 20)
        file.write_bytes(block * 18)
        told: list[int] = []
        store.put_file(LOG, file, 5, (18 << 20) - 5, progress=told.append)
        assert store.list(LOG) == {LOG: (18 << 20) - 10}
        assert store.read(LOG, (9 << 20) - 5, 1 << 20) == block
        assert told == sorted(told)
        assert told[-1] == (18 << 20) - 10

    def test_a_source_that_is_missing_leaves_the_old_object(self, store, tmp_path):
        store.put(LOG, b"old")
        with pytest.raises(StorageError):
            store.put_file(LOG, tmp_path / "gone.log")
        assert store.read(LOG) == b"old"

    @pytest.mark.parametrize("blocks", [0, 2])
    def test_a_source_that_fails_midway_leaves_the_old_object(self, store, tmp_path, blocks):
        store.put(LOG, b"old")
        file = tmp_path / "local.log"
        file.write_bytes(bytes(18 << 20))

        def refuse(done: int) -> None:
            if done > blocks * (8 << 20):
                raise OSError(5, "the disk is broken")

        with pytest.raises(StorageError):
            store.put_file(LOG, file, progress=refuse)
        assert store.read(LOG) == b"old"
        assert store.list(f"{LOG}") == {LOG: 3}

    def test_an_interrupted_put_file_stays_an_interrupt_and_leaves_the_old_object(self, store, tmp_path):
        store.put(LOG, b"old")
        file = tmp_path / "local.log"
        file.write_bytes(bytes(9 << 20))

        def interrupt(_done: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.put_file(LOG, file, progress=interrupt)
        assert store.read(LOG) == b"old"

    def test_a_list_has_the_objects_of_the_prefix_and_no_others(self, store):
        keys = [LOG, f"{LOG}.part.000000000000005", f"{LOG}.1700000000000-ab.log"]
        others = [
            "dag_id=a/run_id=b/attempt=10.log",
            "dag_id=a/run_id=b/attempt=2.log",
            f"{LOG}.d/x.log",
            "dag_id=a/run_id=bb/attempt=1.log",
        ]
        for key in keys + others:
            store.put(key, b"12345")
        assert store.list(LOG) == dict.fromkeys(keys, 5)
        assert store.list("dag_id=a/run_id=b/attempt=3") == {}
        assert store.list("dag_id=nothing/attempt=1.log") == {}

    def test_a_walk_has_every_object_with_size_and_time(self, store):
        before = time.time() - 5
        for key in (LOG, "dag_id=c/attempt=1.log", "top.log"):
            store.put(key, key.encode())
        found = list(store.walk())
        assert {entry.key: entry.size for entry in found} == {
            key: len(key) for key in (LOG, "dag_id=c/attempt=1.log", "top.log")
        }
        assert all(before < entry.modified < time.time() + 5 for entry in found)
        assert [entry.key for entry in store.walk("dag_id=c")] == ["dag_id=c/attempt=1.log"]
        assert list(store.walk("dag_id=nothing")) == []

    def test_a_range_is_read_without_the_rest(self, store):
        store.put(LOG, b"0123456789")
        assert store.read(LOG, 3) == b"3456789"
        assert store.read(LOG, 3, 4) == b"3456"
        assert store.read(LOG, 8, 99) == b"89"

    def test_a_range_at_or_behind_the_end_is_empty(self, store):
        store.put(LOG, b"0123456789")
        assert store.read(LOG, 10) == b""
        assert store.read(LOG, 10, 4) == b""
        assert store.read(LOG, 99, 4) == b""

    def test_an_empty_object_is_read_as_no_bytes(self, store):
        store.put(LOG, b"")
        assert store.read(LOG) == b""

    def test_reading_what_is_not_there_says_so(self, store):
        store.put(LOG, b"1")
        with pytest.raises(FileNotFoundError):
            store.read("dag_id=a/run_id=b/attempt=7.log")

    def test_deleting_twice_is_no_error(self, store):
        store.put(LOG, b"1")
        store.delete([LOG, LOG, "dag_id=a/run_id=b/never.log"])
        store.delete([LOG])
        assert store.list(LOG) == {}
