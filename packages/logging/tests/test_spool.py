# SPDX-License-Identifier: Apache-2.0
"""A journal tells what a dead process left, and a living process keeps its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.logging import spool

LOG = "dag_id=a/attempt=1.log"

HOLD = """
import sys, time
from pathlib import Path
from tradewind.logging import spool
journal = spool.open_journal(Path(sys.argv[1]), sys.argv[2], sys.argv[2], 7)
journal.note(claim=sys.argv[2])
print(journal.path, flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), LOG], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.text() | st.lists(_values.map(json.dumps), max_size=4).map("\n".join))
def test_any_text_is_a_record_or_none(text):
    record = spool.read_record(text)
    if record is not None:
        assert all(isinstance(value, str) for value in (record.token, record.log, record.path))
        assert all(isinstance(value, int) for value in (record.start, record.started_ms))
        assert all(value is None or isinstance(value, str) for value in (record.claim, record.head))


_FIELDS = {"token": "ab", "log": LOG, "path": LOG, "start": 0, "started_ms": 1}


@given(st.sampled_from(sorted(_FIELDS)), _values)
def test_a_needed_field_of_another_type_makes_it_no_record(key, value):
    if type(value) is not type(_FIELDS[key]):
        assert spool.read_record(json.dumps({**_FIELDS, key: value})) is None


@given(st.integers(0, 300))
def test_a_torn_journal_says_what_its_whole_lines_say(length):
    first = json.dumps({"token": "ab", "log": LOG, "path": LOG, "start": 0, "started_ms": 1}) + "\n"
    text = (first + json.dumps({"claim": LOG}) + "\n" + json.dumps({"head": LOG}) + "\n")[:length]
    record = spool.read_record(text)
    if length < len(first) - 1:
        assert record is None
    else:
        assert record is not None
        assert record.log == LOG
        assert record.head in {None, LOG}


def test_a_living_writers_journal_cannot_be_taken_over(tmp_path, holder):
    ((path, record),) = spool.journals(tmp_path)
    assert (record.log, record.start, record.claim, record.head) == (LOG, 7, LOG, None)
    assert spool.take_over(path) is None


def test_a_killed_writers_journal_can_be_taken_over_once(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    ((path, _),) = spool.journals(tmp_path)
    journal = spool.take_over(path)
    assert journal is not None
    code = "import sys; from pathlib import Path; from tradewind.logging import spool; "
    code += "sys.exit(spool.take_over(Path(sys.argv[1])) is not None)"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0
    journal.remove()
    assert list(spool.journals(tmp_path)) == []


def test_a_forked_child_does_not_keep_a_dead_writers_journal(tmp_path):
    code = HOLD.replace("print(", "import os; child = os.fork()\nif child: print(child, ").replace(", flush", ", flush")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), LOG], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    child, path = process.stdout.readline().split(" ", 1)
    try:
        process.kill()
        process.wait()
        os.kill(int(child), 0)
        journal = spool.take_over(spool.Path(path.strip()))
        assert journal is not None
        journal.close()
    finally:
        os.kill(int(child), signal.SIGKILL)
        process.stdout.close()


def test_what_is_noted_after_a_take_over_is_read_by_the_next(tmp_path):
    first = spool.open_journal(tmp_path, LOG, LOG, 0)
    first.note(claim=LOG)
    first.close()
    second = spool.take_over(first.path)
    assert second is not None
    second.note(head=LOG)
    second.close()
    ((_, record),) = spool.journals(tmp_path)
    assert (record.claim, record.head) == (LOG, LOG)


def test_what_is_noted_after_a_torn_line_is_read_by_the_next(tmp_path):
    first = spool.open_journal(tmp_path, LOG, LOG, 0)
    first.close()
    with first.path.open("a") as file:
        file.write('{"cla')
    second = spool.take_over(first.path)
    assert second is not None
    second.note(head=LOG)
    second.close()
    ((_, record),) = spool.journals(tmp_path)
    assert record.head == LOG


def test_a_journal_of_random_bytes_does_not_hide_the_others(tmp_path):
    good = spool.open_journal(tmp_path, LOG, LOG, 0)
    good.close()
    bad = good.path.with_name("00.jsonl")
    bad.write_bytes(b"\xff\xfe\x00")
    assert [path for path, _ in spool.journals(tmp_path)] == [good.path]
    assert spool.take_over(bad) is None


def test_journals_are_listed_by_start(tmp_path):
    folder = tmp_path / spool.FOLDER
    folder.mkdir(parents=True)
    for started in (3, 1, 2):
        fields = {"token": f"{9 - started}", "log": LOG, "path": LOG, "start": 0, "started_ms": started}
        (folder / f"{9 - started}.jsonl").write_text(json.dumps(fields) + "\n")
    assert [record.started_ms for _, record in spool.journals(tmp_path)] == [1, 2, 3]
