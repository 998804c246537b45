# SPDX-License-Identifier: Apache-2.0
"""The UI asks for a running log from its beginning every few seconds; the storage is asked for news only."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.logging.cache import CachedStore, SessionCache
from tradewind.logging.config import LogSettings
from tradewind.logging.layout import part_key
from tradewind.logging.reader import RemoteReader
from tradewind.logging.store import Store, open_store

LOG = "dag_id=a/attempt=1.log"

_numbers = count()


class Counting(Store):
    """A storage that counts what is read of it."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.filesystem, store.root, store.backend)
        self.bytes = 0

    def read(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        data = super().read(key, start, size)
        self.bytes += len(data)
        return data


@pytest.fixture
def store() -> Counting:
    return Counting(open_store(f"memory://cache-{next(_numbers)}/logs"))


@pytest.fixture
def settings(tmp_path) -> LogSettings:
    return LogSettings(remote_base="memory://x", local_base=tmp_path, read_block_bytes=1 << 14)


def lines(first: int, last: int) -> bytes:
    return b"".join(b'{"event":"line %06d"}\n' % number for number in range(first, last))


def refreshed(store: Store, cache: SessionCache, settings: LogSettings) -> str:
    _, streams = RemoteReader(CachedStore(store, cache), settings).stream(LOG)
    return "".join(f"{line}\n" for stream in streams for line in stream)


def test_a_refresh_reads_what_is_new_and_shows_everything(store, settings):
    cache = SessionCache(1 << 20)
    sealed, begun = lines(0, 3000), lines(3000, 4000)
    store.put(LOG, sealed)
    store.put(part_key(LOG, len(sealed)), begun)
    assert refreshed(store, cache, settings) == (sealed + begun).decode()
    more = lines(4000, 4100)
    store.put(part_key(LOG, len(sealed)), begun + more)
    store.bytes = 0
    assert refreshed(store, cache, settings) == (sealed + begun + more).decode()
    # The probe of the head's last known bytes is the rest.
    assert len(more) <= store.bytes <= len(more) + 1024
    store.bytes = 0
    assert refreshed(store, cache, settings) == (sealed + begun + more).decode()
    assert store.bytes <= 1024


def test_the_finished_log_is_read_where_its_parts_end(store, settings):
    cache = SessionCache(1 << 20)
    sealed, begun = lines(0, 1000), lines(1000, 1500)
    store.put(LOG, sealed)
    store.put(part_key(LOG, len(sealed)), begun)
    refreshed(store, cache, settings)
    store.put(LOG, sealed + begun)
    store.delete([part_key(LOG, len(sealed))])
    assert refreshed(store, cache, settings) == (sealed + begun).decode()


def test_a_log_that_was_written_again_under_its_name_is_shown_as_it_is(store, settings):
    cache = SessionCache(1 << 20)
    store.put(LOG, lines(0, 1000))
    refreshed(store, cache, settings)
    for other in (lines(5000, 6000), lines(7000, 7002)):
        store.put(LOG, other)
        assert refreshed(store, cache, settings) == other.decode()
    store.delete([LOG])
    assert refreshed(store, cache, settings) == ""


def test_never_more_than_the_limit_is_kept_and_everything_is_shown(store, settings):
    cache = SessionCache(50_000)
    text = lines(0, 9000)
    store.put(LOG, text)
    for _ in range(2):
        assert refreshed(store, cache, settings) == text.decode()
        assert 0 < cache.size <= 50_000


def test_logs_that_were_not_looked_at_for_long_make_room():
    cache = SessionCache(100, most_objects=2)
    for name in ("a.log", "b.log", "c.log"):
        cache.extend("root", name, 0, b"x" * 40)
    assert cache.get("root", "a.log", 0, 40) == b""
    assert cache.get("root", "c.log", 0, 40) == b"x" * 40
    assert cache.size == 80


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), max_size=20), st.integers(1, 200))
def test_any_order_of_reads_gives_the_storages_bytes(reads, limit):
    store = open_store(f"memory://cache-{next(_numbers)}/logs")
    text = bytes(range(100))
    store.put(LOG, text)
    cache = SessionCache(limit)
    for start, size in reads:
        assert CachedStore(store, cache).read(LOG, start, size) == text[start : start + size]
