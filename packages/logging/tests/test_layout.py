# SPDX-License-Identifier: Apache-2.0
"""Whatever a crash leaves, a reader finds every byte of a session once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.logging import layout

LOG = "dag_id=a/run_id=b/task_id=c/attempt=1.log"
HEADS = [LOG, layout.session_key(LOG, 1700000000000, "3f9a"), f"{LOG}.trigger.7.log"]


def read(session: layout.Session, objects: dict[str, bytes]) -> bytes:
    return b"".join(objects[s.key][s.start : s.start + s.size] for s in session.segments)


def sizes(objects: dict[str, bytes]) -> dict[str, int]:
    return {key: len(data) for key, data in objects.items()}


@st.composite
def running(draw: st.DrawFn, head: str = LOG) -> tuple[bytes, dict[str, bytes]]:
    """A session while it runs: its head and parts one after another."""
    data = draw(st.binary(min_size=1, max_size=200))
    cuts = sorted(draw(st.sets(st.integers(1, len(data)), max_size=6)) - {len(data)})
    ends = [*cuts, len(data)]
    return data, {layout.part_key(head, a): data[a:b] for a, b in zip([0, *cuts], ends, strict=True)}


@given(running())
def test_a_running_session_reads_as_its_bytes(session):
    data, objects = session
    (found,) = layout.sessions(LOG, sizes(objects))
    assert read(found, objects) == data
    assert found.size == len(data)
    assert not found.gaps
    assert not found.redundant


@given(running(), st.data())
def test_a_compaction_that_stops_anywhere_shows_each_byte_once(session, draw):
    data, objects = session
    objects[LOG] = data
    for key in draw.draw(st.sets(st.sampled_from(sorted(objects)))) - {LOG}:
        del objects[key]
    (found,) = layout.sessions(LOG, sizes(objects))
    assert read(found, objects) == data
    assert set(found.redundant) == set(objects) - {LOG}


@given(running(), st.binary(max_size=50), st.data())
def test_a_session_that_goes_on_after_it_was_compacted_shows_each_byte_once(session, more, draw):
    data, objects = session
    last = max(layout.split_key(key)[1] for key in objects)
    objects = {key: value for key, value in objects.items() if draw.draw(st.booleans())}
    objects[LOG] = data
    if last:
        # Its writer does not know that it was compacted and replaces its last object by a larger one.
        objects[layout.part_key(LOG, last)] = data[last:] + more
        data += more
    (found,) = layout.sessions(LOG, sizes(objects))
    assert read(found, objects) == data


@given(st.binary(min_size=1, max_size=100), st.data())
def test_overlapping_objects_show_each_byte_once_and_no_wrong_one(data, draw):
    spans = draw.draw(st.lists(st.tuples(st.integers(0, len(data)), st.integers(0, len(data))), max_size=8))
    objects = {layout.part_key(LOG, min(a, b)): data[min(a, b) : max(a, b)] for a, b in spans}
    offsets = {key: layout.split_key(key)[1] for key in objects}
    covered = {offsets[key] + i for key, value in objects.items() for i in range(len(value))}
    found = layout.sessions(LOG, sizes(objects))
    if not objects:
        assert found == []
        return
    (session,) = found
    seen = [i for s in session.segments for i in range(s.offset, s.offset + s.size)]
    assert seen == sorted(covered)
    assert read(session, objects) == bytes(data[i] for i in sorted(covered))
    missing = {i for offset, size in session.gaps for i in range(offset, offset + size)}
    assert not missing & covered
    assert set(range(max(covered, default=-1) + 1)) <= missing | covered


@given(st.tuples(*(running(head) for head in HEADS)))
def test_sessions_of_one_log_do_not_mix(three):
    objects = {key: value for _, stored in three for key, value in stored.items()}
    found = {session.head: session for session in layout.sessions(LOG, sizes(objects))}
    assert {head: read(found[head], objects) for head in HEADS} == {
        head: data for head, (data, _) in zip(HEADS, three, strict=True)
    }
    assert next(iter(found)) == LOG


@given(st.integers(0, 10**14), st.sampled_from(HEADS))
def test_a_part_key_says_where_it_belongs(offset, head):
    assert layout.split_key(layout.part_key(head, offset)) == (head, offset)


@given(st.lists(st.integers(0, 10**12), unique=True, max_size=8))
def test_later_sessions_follow_by_their_start(starts):
    keys = [layout.session_key(LOG, start, "ab") for start in starts]
    found = [session.head for session in layout.sessions(LOG, dict.fromkeys([*keys, LOG], 1))]
    assert found == [LOG, *(layout.session_key(LOG, start, "ab") for start in sorted(starts))]


@pytest.mark.parametrize("key", ["dag_id=a/attempt=10.log", "dag_id=a/attempt=1.logs", "dag_id=ab/attempt=1.log"])
def test_another_logs_objects_are_left_out(key):
    assert not layout.belongs("dag_id=a/attempt=1.log", key)
    assert layout.sessions("dag_id=a/attempt=1.log", {key: 5}) == []
