# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import textwrap
import tracemalloc
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradewind.logging import layout
from tradewind.logging.config import LogSettings
from tradewind.logging.exceptions import StorageError
from tradewind.logging.merging import ENDGROUP, close_groups, merge, timestamp_of
from tradewind.logging.reader import Portion, RemoteReader, end_of, missing, ordered, session_lines
from tradewind.logging.store import Store, open_store

LOG = "dag_id=d/run_id=r/task_id=t/attempt=1.log"
_numbers = itertools.count()
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def new_store() -> Store:
    return open_store(f"memory://reader-{next(_numbers)}/logs")


def line_at(seconds: float, event: str = "x") -> str:
    when = (START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    return json.dumps({"timestamp": when, "event": event})


def put_in_parts(store: Store, head: str, data: bytes, cuts: list[int]) -> layout.Session:
    edges = [0, *sorted({c for c in cuts if 0 < c < len(data)}), len(data)]
    for begin, end in itertools.pairwise(edges):
        store.put(layout.part_key(head, begin), data[begin:end])
    (session,) = layout.sessions(head, store.list(head))
    return session


def expected_lines(data: bytes) -> list[str]:
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [line.removesuffix(b"\r").decode("utf-8", "replace") for line in lines]


class Counting:
    """A file system that passes everything on and counts the bytes that it read."""

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem
        self.bytes = 0
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._filesystem, name)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        data: bytes = self._filesystem.cat_file(path, start=start, end=end)
        self.bytes += len(data)
        self.reads += 1
        return data


_texts = st.lists(
    st.one_of(
        st.text(max_size=12).map(lambda t: t.encode("utf-8", "ignore")),
        st.sampled_from([b"", b"\r", b"\xff\xfe", "é€😀".encode(), "😀".encode()[:2], b"{}"]),
        st.binary(max_size=8),
    ),
    max_size=30,
)


@given(
    texts=_texts,
    ends=st.lists(st.sampled_from([b"\n", b"\r\n"]), min_size=30, max_size=30),
    ends_whole=st.booleans(),
    cuts=st.lists(st.integers(1, 400), max_size=8),
    block_bytes=st.integers(1, 64),
)
@settings(max_examples=200, deadline=None)
def test_any_blocks_and_parts_give_the_same_lines(texts, ends, ends_whole, cuts, block_bytes):
    data = b"".join(text + end for text, end in zip(texts, ends, strict=False))
    if not ends_whole:
        data = data.rstrip(b"\r\n")
    if not data:
        return
    store = new_store()
    session = put_in_parts(store, LOG, data, cuts)
    assert list(session_lines(store, session, block_bytes=block_bytes)) == expected_lines(data)


def test_reading_can_begin_at_any_line():
    store = new_store()
    data = "".join(f"{line_at(i)}\n" for i in range(50)).encode()
    session = put_in_parts(store, LOG, data, [700, 1400])
    begin = data.index(b"\n", 1000) + 1
    assert list(session_lines(store, session, block_bytes=100, start=begin)) == expected_lines(data[begin:])


@pytest.mark.parametrize("url", ["memory", "file"])
def test_a_session_that_ends_while_it_is_read_gives_every_line_once(url, tmp_path: Path):
    store = new_store() if url == "memory" else open_store(tmp_path.as_uri())
    data = "".join(f"{line_at(i)}\n" for i in range(400)).encode()
    for change_at in (1, 37, 200, 399):
        session = put_in_parts(store, LOG, data, [3000, 6000, 9000])
        assert len(session.segments) == 4
        got = []
        for line in session_lines(store, session, block_bytes=512):
            got.append(line)
            if len(got) == change_at:
                store.put(LOG, data)
                store.delete(k for k in store.list(LOG) if k != LOG)
        assert got == expected_lines(data)


def test_an_open_part_that_grows_while_it_is_read_is_read_to_where_it_was_listed():
    store = new_store()
    data = b"one\ntwo\n"
    session = put_in_parts(store, LOG, data, [])
    lines = session_lines(store, session, block_bytes=4)
    first = next(lines)
    store.put(LOG, b"one\ntwo\nthree\n")
    assert [first, *lines] == ["one", "two"]


def test_a_gap_ends_a_line_and_is_told_where_it_is():
    store = new_store()
    store.put(LOG, b"a\nbroken")
    store.put(layout.part_key(LOG, 20), b"off\nc\n")
    (session,) = layout.sessions(LOG, store.list(LOG))
    assert list(session_lines(store, session, block_bytes=64)) == ["a", "broken", "off", "c"]
    assert missing(session, "s3://b") == ["bytes 8-19 of attempt=1.log are missing in s3://b"]
    (told,) = [line for line in ordered(store, [Portion(session, 0, end_of(session))], 64) if "missing" in line]
    assert json.loads(told)["event"] == "Bytes 8-19 of attempt=1.log are missing here."


def test_a_log_that_is_deleted_while_it_is_read_ends_with_a_line_that_says_so():
    store = new_store()
    session = put_in_parts(store, LOG, b"one\n" * 100, [])
    lines = ordered(store, [Portion(session, 0, end_of(session))], 1 << 16)
    small = session_lines(store, session, block_bytes=8)
    assert next(small) == "one"
    store.delete(list(store.list(LOG)))
    assert list(small) == ["one"]
    (told,) = lines
    assert json.loads(told)["event"] == "Bytes 0-399 of attempt=1.log are missing here."


class Refusing(Counting):
    """A file system that reads once and then fails."""

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        if self.reads:
            raise PermissionError(13, "no")
        return super().cat_file(path, start, end)


def test_a_storage_that_fails_half_way_is_told_at_that_place():
    store = new_store()
    session = put_in_parts(store, LOG, b"one\ntwo\n", [4])
    failing = Store(Refusing(store.filesystem), store.root, store.backend)
    with pytest.raises(StorageError):
        list(session_lines(failing, session, block_bytes=64))
    failing = Store(Refusing(store.filesystem), store.root, store.backend)
    first, last = ordered(failing, [Portion(session, 0, end_of(session))], 64)
    assert first == "one"
    assert json.loads(last)["event"].startswith("The rest of attempt=1.log could not be read: can't read")


def test_one_line_of_50_mb_takes_little_more_memory_than_itself(tmp_path: Path):
    line = 50 << 20
    (tmp_path / "attempt=1.log").write_bytes(b"x" * line + b"\ny\n")
    program = """
        import sys, tracemalloc
        from tradewind.logging import layout
        from tradewind.logging.reader import session_lines
        from tradewind.logging.store import open_store
        store = open_store(sys.argv[1])
        (session,) = layout.sessions("attempt=1.log", store.list("attempt=1.log"))
        tracemalloc.start()
        sizes = [len(line) for line in session_lines(store, session, block_bytes=4 << 20)]
        print(*sizes, tracemalloc.get_traced_memory()[1])
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), tmp_path.as_uri()], check=True, capture_output=True, text=True
    )
    *sizes, peak = map(int, run.stdout.split())
    assert sizes == [line, 1]
    # The bytes, with what a growing bytearray keeps in reserve, their text, and a block.
    assert peak < 2.4 * line + (8 << 20)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"timestamp":"1970-01-01T00:00:01.25Z","event":"x"}', 1.25),
        ('{"timestamp": "1970-01-01T01:00:01.250000+01:00"}', 1.25),
        ('{"event":"a","timestamp":"1970-01-01T00:00:03Z"}', 3.0),
        ("1970-01-01T00:00:04Z text", 4.0),
        ("[1970-01-01T00:00:05.123+0000] {x.py:3} INFO - text", 5.123),
        ("[1970-01-01 00:00:05,123] INFO", 5.123),
        ("1970-01-01T00:00:06.123456789Z x", 6.123456),
        ('{"timestamp":12}', None),
        ('{"timestamp":"never, or about so"}', None),
        ('{"timestamp', None),
        ("[1, 2, 3]", None),
        ("Traceback (most recent call last):", None),
        ("", None),
    ],
)
def test_a_lines_time_is_found_in_json_and_in_text(line, expected):
    assert timestamp_of(line) == expected


def naive_merge(streams: list[list[str]], starts: list[float]) -> list[str]:
    keyed = []
    for index, stream in enumerate(streams):
        latest = starts[index]
        for position, line in enumerate(stream):
            time = timestamp_of(line)
            latest = latest if time is None else max(latest, time)
            keyed.append((latest, index, position, line))
    return [line for *_, line in sorted(keyed)]


_moments = st.one_of(st.none(), st.integers(0, 20))


@given(
    shapes=st.lists(st.lists(_moments, max_size=12), max_size=5),
    starts=st.lists(
        st.one_of(st.just(float("-inf")), st.integers(0, 20).map(lambda s: START.timestamp() + s)),
        min_size=5,
        max_size=5,
    ),
)
@settings(max_examples=300, deadline=None)
def test_merging_is_the_sort_by_each_streams_latest_time(shapes, starts):
    streams = [
        [f"plain {i}.{j}" if at is None else line_at(at, f"{i}.{j}") for j, at in enumerate(shape)]
        for i, shape in enumerate(shapes)
    ]
    merged = list(merge(streams, starts[: len(streams)]))
    assert merged == naive_merge(streams, starts)
    assert sorted(merged) == sorted(line for stream in streams for line in stream)
    for stream in streams:
        known = set(stream)
        assert [line for line in merged if line in known] == stream


def test_ten_sessions_of_20000_lines_come_without_an_inversion():
    def stream(number: int) -> Any:
        # Some overlap and some follow each other.
        return (line_at(number % 5 * 15000 + i + number / 100, "x") for i in range(20000))

    latest = float("-inf")
    inversions = count = 0
    for line in merge([stream(number) for number in range(10)]):
        time = timestamp_of(line)
        assert time is not None
        inversions += time < latest
        latest = max(latest, time)
        count += 1
    assert (count, inversions) == (200000, 0)


def test_a_line_without_a_time_stays_behind_its_predecessor():
    one = [line_at(1, "error"), "Traceback:", "  File", line_at(5, "end")]
    two = [line_at(1, "b"), line_at(2, "c")]
    assert list(merge([one, two])) == [*one[:3], *two, one[3]]


def test_a_clock_that_jumps_back_reorders_nothing_inside_a_session():
    one = [line_at(10, "Done"), line_at(9.995, "printed"), line_at(10.1, "after")]
    assert list(merge([one, [line_at(9.999, "other")]])) == [line_at(9.999, "other"), *one]


def test_a_session_is_not_opened_before_its_time_has_come():
    opened = []

    def stream(number: int) -> Any:
        opened.append(number)
        yield line_at(number * 10)
        yield line_at(number * 10 + 5)

    merged = merge([stream(n) for n in range(5)], [START.timestamp() + n * 10 for n in range(5)])
    assert next(merged) == line_at(0)
    assert opened == [0]
    assert len(list(merged)) == 9


def test_a_group_that_a_killed_task_left_open_is_closed():
    lines = [(0, "::group::A"), (0, "::group::B"), (0, "x"), (1, "::endgroup::"), (1, "::group::C"), (1, "y")]
    assert list(close_groups(lines)) == [
        *("::group::A", "::group::B", "x", ENDGROUP, ENDGROUP),
        *("::endgroup::", "::group::C", "y", ENDGROUP),
    ]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["::group::A", "::endgroup::", "x", ""])), max_size=30))
def test_closing_groups_drops_and_moves_nothing_and_leaves_none_open(lines):
    closed = list(close_groups(lines))
    assert [line for line in closed if line is not ENDGROUP] == [line for _, line in lines]
    depth = 0
    for line in closed:
        depth = max(0, depth + ("::group::" in line) - ("::endgroup::" in line))
    assert depth == 0


def reader_of(store: Store, **options: Any) -> RemoteReader:
    return RemoteReader(store, LogSettings(remote_base="memory://b/logs", local_base=Path("/nowhere"), **options))


def test_a_log_of_several_sessions_is_one_ordered_stream():
    store = new_store()
    worker = [line_at(i, "worker") for i in (0, 1, 10, 11)]
    trigger = [line_at(i, "trigger") for i in (2, 3, 4)]
    again_ms = int((START.timestamp() + 20) * 1000)
    again = [line_at(i, "again") for i in (20, 21)]
    store.put(LOG, "\n".join([*worker, ""]).encode())
    store.put(f"{LOG}.trigger.7.log", "\n".join([*trigger, ""]).encode())
    store.put(layout.session_key(LOG, again_ms, "3f9a"), "\n".join([*again, ""]).encode())
    store.put(LOG.replace("=1", "=10"), b"another attempt\n")
    sources, streams = reader_of(store).stream(LOG)
    assert sources == [f"memory://b/logs/{LOG}: 3 sessions, {sum(store.list(f'{LOG}').values())} bytes"]
    (stream,) = streams
    assert list(stream) == [*worker[:2], *trigger, *worker[2:], *again]
    assert reader_of(store).read(LOG)[1] == ["\n".join([*worker[:2], *trigger, *worker[2:], *again])]


def test_a_log_that_is_not_stored_gives_no_stream_and_says_so():
    assert reader_of(new_store()).stream(LOG) == ([f"memory://b/logs/{LOG}: nothing is stored there"], [])


def test_a_cursor_survives_json_and_transfers_only_what_is_new():
    store = new_store()
    counting = Counting(store.filesystem)
    reader = reader_of(Store(counting, store.root, store.backend), read_block_bytes=1 << 16)
    old = "".join(f"{line_at(i)}\n" for i in range(5000)).encode()
    store.put(LOG, old)
    lines, cursor = reader.lines(LOG)
    assert len(list(lines)) == 5000

    counting.bytes = counting.reads = 0
    lines, cursor = reader.lines(LOG, json.loads(json.dumps(cursor)))
    assert (list(lines), counting.reads) == ([], 0)

    new = f"{line_at(6000)}\n".encode()
    store.put(LOG, old + new)
    store.put(f"{LOG}.trigger.7.log", b"first\n")
    lines, cursor = reader.lines(LOG, cursor)
    assert list(lines) == ["first", line_at(6000)]
    assert counting.bytes == len(new) + len(b"first\n")
    assert cursor == {"": len(old + new), ".trigger.7.log": 6}


@given(
    texts=st.lists(st.text(alphabet="aé\r", max_size=6), min_size=1, max_size=20),
    cuts=st.lists(st.integers(1, 200), max_size=6),
    block_bytes=st.integers(1, 40),
)
@settings(max_examples=100, deadline=None)
def test_polls_of_a_growing_log_give_each_whole_line_once(texts, cuts, block_bytes):
    store = new_store()
    reader = reader_of(store, read_block_bytes=block_bytes)
    data = "".join(f"{text}\n" for text in texts).encode()
    got: list[str] = []
    cursor: dict[str, int] = {}
    for end in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        store.put(LOG, data[:end])
        lines, cursor = reader.lines(LOG, cursor)
        got.extend(lines)
    assert got == expected_lines(data)


def test_polls_during_compaction_give_each_line_once():
    store = new_store()
    reader = reader_of(store, read_block_bytes=1 << 12)
    data = "".join(f"{line_at(i)}\n" for i in range(600)).encode()
    randomly = random.Random(7)  # noqa: S311 - the same sizes in each run
    got: list[str] = []
    cursor: dict[str, int] = {}
    sent = sealed = 0
    while sent < len(data):
        sent = min(len(data), sent + randomly.randint(1, 4000))
        store.put(layout.part_key(LOG, sealed), data[sealed:sent])
        if sent - sealed > 8192:
            sealed = sent
        lines, cursor = reader.lines(LOG, cursor)
        got.extend(lines)
    store.put(LOG, data)
    lines, cursor = reader.lines(LOG, cursor)
    got.extend(lines)
    store.delete([k for k in store.list(LOG) if k != LOG])
    lines, cursor = reader.lines(LOG, cursor)
    assert [*got, *lines] == expected_lines(data)


def test_sessions_that_follow_each_other_keep_memory_bounded():
    # Pokes of a sensor, 1 MB each: only what is open at once is held.
    store = new_store()
    first = int(START.timestamp())
    filler = "x" * 1000
    for poke in range(60):
        text = "".join(f"{line_at(poke * 100 + i / 10, filler)}\n" for i in range(900))
        store.put(layout.session_key(LOG, (first + poke * 100) * 1000, f"{poke:04x}"), text.encode())
    tracemalloc.start()
    count = sum(1 for stream in reader_of(store).stream(LOG)[1] for _ in stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 60 * 900
    assert peak < 16 << 20
