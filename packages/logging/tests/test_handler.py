# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import json
import logging
import os
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from itsdangerous import URLSafeSerializer

from tradewind.logging import layout, spool
from tradewind.logging.config import LogSettings
from tradewind.logging.exceptions import LogSettingsError
from tradewind.logging.reader import FIRST_BLOCK_BYTES
from tradewind.logging.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOG = "dag_id=d/run_id=r/task_id=t/attempt=1.log"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
_numbers = itertools.count()


def line_at(seconds: float, event: str = "x") -> str:
    return json.dumps({"timestamp": (START + timedelta(seconds=seconds)).isoformat(), "event": event})


def text_of(*events: str, start: int = 0) -> bytes:
    return "".join(f"{line_at(start + i, event)}\n" for i, event in enumerate(events)).encode()


@pytest.fixture
def ti(airflow_db) -> Iterator[Any]:
    import pendulum
    from airflow import settings
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG
    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunTriggeredByType, DagRunType
    from sqlalchemy import select
    from sqlalchemy.orm import joinedload

    settings.engine.dispose()
    with DAG("d", schedule=None) as dag:
        EmptyOperator(task_id="t")
    now = pendulum.datetime(2026, 1, 1)
    with create_session() as session:
        session.add(DagBundleModel(name="b"))
        session.flush()
        lazy = LazyDeserializedDAG.from_dag(dag)
        SerializedDAG.bulk_write_to_db("b", None, [lazy], session=session)
        SerializedDagModel.write_dag(lazy, bundle_name="b", session=session)
        session.commit()
        DagSerialization.from_dict(DagSerialization.to_dict(dag)).create_dagrun(
            run_id="r",
            logical_date=now,
            data_interval=(now, now),
            run_after=now,
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state="running",
            session=session,
        )
        session.commit()
        instance = session.scalars(select(TaskInstance)).one()
        instance.try_number = 1
        instance.state = "running"
        session.commit()
        # As the log route loads it.
        query = (
            select(TaskInstance)
            .options(joinedload(TaskInstance.trigger).joinedload(Trigger.triggerer_job))
            .options(joinedload(TaskInstance.dag_model))
            .execution_options(populate_existing=True)
        )
        yield session.scalars(query).one()
    settings.engine.dispose()


class Counting:
    """A file system that passes everything on and counts the bytes that it read."""

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem
        self.bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._filesystem, name)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        data: bytes = self._filesystem.cat_file(path, start=start, end=end)
        self.bytes += len(data)
        return data


class Bench:
    """A handler over an empty storage and an empty folder."""

    def __init__(self, base: Path) -> None:
        from tradewind.logging.handler import TradewindTaskHandler

        self.base = base
        self.url = f"memory://handler-{next(_numbers)}/logs"
        store = open_store(self.url)
        self.counting = Counting(store.filesystem)
        self.store = Store(self.counting, store.root, store.backend)
        self.settings = LogSettings(remote_base=self.url, local_base=base, read_block_bytes=1 << 16)
        self.handler = TradewindTaskHandler(str(base), source=lambda: (self.store, self.settings))

    def local(self, data: bytes, name: str = LOG) -> Path:
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def read(self, ti: Any, metadata: Any = None) -> tuple[list[str], list[str], Any]:
        """The source lines, the events, and the metadata after the token's way to the client and back."""
        stream, out = self.handler.read(ti, 1, metadata)
        events = [message.event for message in stream]
        sources: list[str] = []
        if events[:1] == ["::group::Log message source details"]:
            end = events.index("::endgroup::")
            sources, events = events[1:end], events[end + 1 :]
        serializer = URLSafeSerializer("secret")
        return sources, events, serializer.loads(serializer.dumps(out))


@pytest.fixture
def bench(tmp_path: Path, log_server) -> Bench:
    return Bench(tmp_path / "logs")


class LogServer:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.data = b""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.data)))
                self.end_headers()
                self.wfile.write(outer.data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def log_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogServer]:
    server = LogServer()
    monkeypatch.setenv("AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT", str(server.server.server_port))
    monkeypatch.setenv("AIRFLOW__API__SECRET_KEY", "0123456789" * 8)
    yield server
    server.server.shutdown()
    server.server.server_close()


def test_a_finished_log_is_shown_with_where_it_came_from(ti, bench):
    ti.state = "success"
    bench.store.put(LOG, text_of("a", "b"))
    sources, events, metadata = bench.read(ti)
    assert sources == [f"{bench.url}/{LOG}: 1 session, {len(text_of('a', 'b'))} bytes"]
    assert events == ["a", "b"]
    assert metadata["end_of_log"] is True
    assert "tradewind_cursor" not in metadata


def test_the_first_lines_of_a_large_finished_log_come_before_the_rest_is_read(ti, bench):
    ti.state = "success"
    bench.store.put(LOG, text_of(*("x" * 100 for _ in range(20000))))
    stream, _ = bench.handler.read(ti, 1)
    assert bench.counting.bytes == 0
    events = [next(stream).event for _ in range(10)]
    assert events[-1] == "x" * 100
    assert 0 < bench.counting.bytes <= FIRST_BLOCK_BYTES
    assert sum(1 for _ in stream) == 20000 - 10 + 3


def test_airflows_reader_streams_our_lines_as_ndjson(ti, bench):
    from airflow.utils.log.log_reader import TaskLogReader

    ti.state = "success"
    bench.store.put(LOG, text_of("a", "b"))
    bench.handler.name = "task"
    logger = logging.getLogger("airflow.task")
    logger.handlers.insert(0, bench.handler)
    try:
        lines = list(TaskLogReader().read_log_stream(ti, 1, {}))  # type: ignore[typeddict-item]
    finally:
        logger.removeHandler(bench.handler)
    assert [json.loads(line)["event"] for line in lines][-2:] == ["a", "b"]
    assert all(line.endswith("\n") for line in lines)


def test_a_poll_transfers_only_what_is_new(ti, bench):
    old = text_of(*(f"old {i}" for i in range(3000)))
    bench.store.put(LOG, old)
    sources, events, metadata = bench.read(ti)
    assert sources
    assert len(events) == 3000
    assert metadata["end_of_log"] is False

    bench.counting.bytes = 0
    assert bench.read(ti, metadata)[:2] == ([], [])
    assert bench.counting.bytes == 0

    new = text_of("new", start=4000)
    bench.store.put(LOG, old + new)
    sources, events, metadata = bench.read(ti, metadata)
    assert (sources, events) == ([], ["new"])
    assert bench.counting.bytes == len(new)

    ti.state = "success"
    bench.store.put(LOG, old + new + b"last without an end")
    assert bench.read(ti, metadata)[1] == ["last without an end"]


def test_a_reading_from_the_start_ignores_an_old_cursor(ti, bench):
    bench.store.put(LOG, text_of("a"))
    *_, metadata = bench.read(ti)
    del metadata["log_pos"]
    assert bench.read(ti, metadata)[1] == ["a"]


def test_a_line_that_is_half_written_is_shown_when_it_is_whole(ti, bench):
    whole = text_of("a", "b")
    bench.store.put(LOG, whole[:-5])
    _, events, metadata = bench.read(ti)
    assert events == ["a"]
    bench.store.put(LOG, whole)
    assert bench.read(ti, metadata)[1] == ["b"]


def test_no_worker_is_asked_while_the_stored_tail_is_fresh(ti, bench, log_server):
    ti.hostname = "127.0.0.1"
    bench.store.put(LOG, text_of("a"))
    for state in ("running", "deferred"):
        ti.state = state
        assert bench.read(ti)[1] == ["a"]
    ti.state = "success"
    assert bench.read(ti)[1] == ["a"]
    assert log_server.asked == []


def test_a_worker_is_asked_when_nothing_is_stored_and_its_lines_are_shown_once(ti, bench, log_server):
    ti.hostname = "127.0.0.1"
    log_server.data = text_of("a", "b")
    sources, events, metadata = bench.read(ti)
    assert events == ["a", "b"]
    assert sources[0] == f"{bench.url}/{LOG}: nothing is stored there yet."
    assert "/log/dag_id" in sources[1]

    log_server.data = text_of("a", "b", "c")
    _, events, metadata = bench.read(ti, metadata)
    assert events == ["c"]
    # From now on the storage works.
    bench.store.put(LOG, text_of("a", "b", "c", "d"))
    asked = len(log_server.asked)
    _, events, metadata = bench.read(ti, metadata)
    assert events == ["d"]
    assert len(log_server.asked) == asked


def test_a_worker_is_asked_for_what_a_stale_storage_lacks(ti, tmp_path: Path, log_server):
    bench = Bench(tmp_path / "logs")
    bench.store = open_store((tmp_path / "remote").as_uri())
    ti.hostname = "127.0.0.1"
    second = layout.session_key(LOG, int(START.timestamp() + 10) * 1000, "3f9a")
    bench.store.put(LOG, text_of("a", "b"))
    bench.store.put(second, text_of("c", start=10))
    for key in (LOG, second):
        os.utime(bench.store.path(key), (time.time() - 300, time.time() - 300))
    log_server.data = text_of("a", "b") + text_of("c", "d", start=10)
    sources, events, metadata = bench.read(ti)
    assert events == ["a", "b", "c", "d"]
    assert any("s old; the log server of the worker was asked" in source for source in sources)
    log_server.data += text_of("e", start=20)
    assert bench.read(ti, metadata)[1] == ["e"]


def test_a_worker_without_a_name_is_told_and_nothing_fails(ti, bench):
    sources, events, _ = bench.read(ti)
    assert events == []
    assert any("Hostname not available" in source for source in sources)


def test_without_a_storage_this_machines_lines_are_shown_and_the_reason(ti, bench):
    from tradewind.logging.handler import TradewindTaskHandler

    bench.local(text_of("a", "b"))

    def refuse() -> tuple[Store, LogSettings]:
        raise LogSettingsError("[logging] remote_base_log_folder='x': expected a URL")

    bench.handler = TradewindTaskHandler(str(bench.base), source=refuse)
    for state in ("running", "success"):
        ti.state = state
        sources, events, _ = bench.read(ti)
        assert events == ["a", "b"]
        assert sources[0].startswith("Could not read the log storage: [logging] remote_base_log_folder='x'")


def test_without_a_source_airflows_configuration_names_the_storage(ti, bench, tmp_path: Path, monkeypatch):
    from tradewind.logging.handler import TradewindTaskHandler

    ti.state = "success"
    bench.handler = TradewindTaskHandler(str(bench.base))
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", (tmp_path / "remote").as_uri())
    open_store((tmp_path / "remote").as_uri()).put(LOG, text_of("a"))
    assert bench.read(ti)[1] == ["a"]
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", "nonsense")
    sources, events, _ = bench.read(ti)
    assert events == []
    assert sources[0].startswith("Could not read the log storage: [logging] remote_base_log_folder='nonsense'")


class Broken(Counting):
    def ls(self, *_: Any, **__: Any) -> Any:
        raise PermissionError(13, "denied")


def test_a_storage_that_refuses_to_list_is_told_without_its_password(ti, bench):
    bench.local(text_of("a"))
    bench.store = Store(Broken(bench.store.filesystem), bench.store.root, bench.store.backend)
    bench.settings = LogSettings(remote_base="sftp://user:hunter2@host/logs", local_base=bench.base)
    sources, events, metadata = bench.read(ti)
    assert events == ["a"]
    assert sources[0].startswith("Could not read sftp://user@host/logs: can't list dag_id=d")
    assert "hunter2" not in " ".join(sources)
    assert bench.read(ti, metadata)[1] == []


def test_a_local_file_gives_only_what_is_not_stored(ti, bench):
    data = text_of("a", "b", "c")
    path = bench.local(data)
    journal = spool.open_journal(bench.base, LOG, LOG, 0)
    journal.note(head=LOG)
    journal.close()
    bench.store.put(LOG, text_of("a", "b"))
    sources, events, metadata = bench.read(ti)
    assert events == ["a", "b", "c"]
    assert (
        sources[1]
        == f"{path}: {len(data) - len(text_of('a', 'b'))} bytes on this machine that the storage does not have"
    )
    path.write_bytes(text_of("a", "b", "c", "d"))
    _, events, metadata = bench.read(ti, metadata)
    assert events == ["d"]
    bench.store.put(LOG, text_of("a", "b", "c", "d"))
    path.write_bytes(b"")
    assert bench.read(ti, metadata)[1] == []


def test_two_sessions_in_one_local_file_are_two_sessions(ti, bench):
    first, second = text_of("a", "b"), text_of("c", "d", start=10)
    bench.local(first + second)
    one = spool.open_journal(bench.base, LOG, LOG, 0)
    one.note(head=LOG)
    two = spool.open_journal(bench.base, LOG, LOG, len(first))
    one.close()
    two.close()
    bench.store.put(LOG, first[: len(first) // 2])
    _, events, metadata = bench.read(ti)
    assert events == ["a", "b", "c", "d"]
    head = layout.session_key(LOG, two.record.started_ms, two.record.token)
    with two.path.open("a") as file:
        file.write(json.dumps({"head": head}) + "\n")
    bench.store.put(head, second)
    assert bench.read(ti, metadata)[1] == []


def test_lines_without_a_journal_are_shown_once_before_and_after_they_are_stored(ti, bench):
    path = bench.local(text_of("a"))
    _, events, metadata = bench.read(ti)
    assert events == ["a"]
    path.write_bytes(text_of("a", "b"))
    _, events, metadata = bench.read(ti, metadata)
    assert events == ["b"]
    bench.store.put(LOG, text_of("a", "b", "c"))
    _, events, metadata = bench.read(ti, metadata)
    assert events == ["c"]
    path.unlink()
    assert bench.read(ti, metadata)[1] == []


def test_a_file_that_is_sent_and_emptied_while_it_is_read_loses_nothing(ti, bench):
    ti.state = "success"
    data = text_of(*("x" * 100 + str(i) for i in range(8000)))
    path = bench.local(data)
    bench.store.put(LOG, data[: data.index(b"\n", 5000) + 1])
    stream, _ = bench.handler.read(ti, 1)
    got = [next(stream).event for _ in range(200)]
    bench.store.put(LOG, data)
    path.write_bytes(b"")
    got += [message.event for message in stream]
    assert [event[100:] for event in got if event.startswith("x")] == [str(i) for i in range(8000)]


def test_a_local_only_log_that_is_sent_and_deleted_while_it_is_read_loses_nothing(ti, bench):
    ti.state = "success"
    data = text_of(*("x" * 100 + str(i) for i in range(8000)))
    path = bench.local(data)
    stream, _ = bench.handler.read(ti, 1)
    got = [next(stream).event for _ in range(200)]
    bench.store.put(layout.session_key(LOG, 1700000000000, "aa"), data)
    path.unlink()
    got += [message.event for message in stream]
    assert [event[100:] for event in got if event.startswith("x")] == [str(i) for i in range(8000)]


class Sending(Counting):
    """A file system on which a worker finishes its log just after, or just before, it is listed."""

    def __init__(self, filesystem: Any, send: Any, *, before: bool) -> None:
        super().__init__(filesystem)
        self.send = send
        self.before = before

    def ls(self, *args: Any, **options: Any) -> Any:
        send, self.send = self.send, None
        if send and self.before:
            send()
        listed = self._filesystem.ls(*args, **options)
        if send and not self.before:
            send()
        return listed


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("stored", [b"", text_of("a")])
def test_a_log_that_is_sent_while_it_is_listed_is_shown_once_and_whole(ti, bench, before, journal, stored):
    ti.state = "success"
    path = bench.local(text_of("a", "b"))
    if journal:
        spool.open_journal(bench.base, LOG, LOG, 0).close()
    store = bench.store
    if stored:
        store.put(LOG, stored)

    def send() -> None:
        store.put(LOG, text_of("a", "b"))
        path.write_bytes(b"")

    bench.store = Store(Sending(store.filesystem, send, before=before), store.root, store.backend)
    assert bench.read(ti)[1] == ["a", "b"]


def test_a_link_out_of_the_log_folder_is_not_followed(ti, bench, tmp_path: Path):
    ti.state = "success"
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    bench.local(text_of("a"))
    (bench.base / f"{LOG}.link").symlink_to(secret)
    assert bench.read(ti)[1] == ["a"]


def test_what_is_missing_is_told(ti, bench):
    ti.state = "success"
    bench.store.put(LOG, text_of("a"))
    bench.store.put(layout.part_key(LOG, 1000), text_of("z", start=10))
    sources, events, _ = bench.read(ti)
    size = len(text_of("a"))
    assert sources[1] == f"bytes {size}-999 of attempt=1.log are missing in {bench.url}"
    assert events == ["a", f"Bytes {size}-999 of attempt=1.log are missing here.", "z"]


def test_a_finished_session_that_nobody_closed_is_told(ti, bench):
    bench.store.put(LOG, text_of("a"))
    bench.store.put(layout.part_key(LOG, len(text_of("a"))), text_of("b", start=1))
    assert not any("not closed" in source for source in bench.read(ti)[0])
    ti.state = "failed"
    sources, events, _ = bench.read(ti)
    assert events == ["a", "b"]
    assert sources[1].startswith("attempt=1.log was not closed by its worker")


def test_lines_keep_their_order_around_a_group(ti, bench):
    # Printed lines carry a time some milliseconds after that of a line that is logged after them.
    ti.state = "success"
    lines = [
        *(line_at(52.0119, f"printed {i}") for i in range(4)),
        line_at(52.0062, "Done"),
        line_at(52.0080, "::group::Post Execute"),
        line_at(52.0081, "inside"),
        line_at(52.0200, "::endgroup::"),
    ]
    bench.store.put(LOG, "\n".join(lines).encode())
    events = bench.read(ti)[1]
    assert events == [json.loads(line)["event"] for line in lines]


def test_a_group_left_open_by_a_killed_task_hides_nothing(ti, bench):
    ti.state = "success"
    bench.store.put(LOG, text_of("::group::Pre task execution logs", "killed here"))
    bench.store.put(layout.session_key(LOG, int(START.timestamp() + 60) * 1000, "3f9a"), text_of("again", start=60))
    assert bench.read(ti)[1] == ["::group::Pre task execution logs", "killed here", "::endgroup::", "again"]
    bench.store.delete(list(bench.store.list(LOG)))
    bench.store.put(LOG, text_of("::group::Pre task execution logs", "killed here"))
    assert bench.read(ti)[1][-1] == "::endgroup::"


def test_equal_lines_are_all_shown(ti, bench):
    ti.state = "success"
    bench.store.put(LOG, f"{line_at(1)}\n".encode() * 3)
    assert bench.read(ti)[1] == ["x", "x", "x"]


def test_a_trigger_and_a_worker_are_merged_by_time(ti, bench):
    ti.state = "success"
    bench.store.put(LOG, text_of("w0", "w1") + text_of("w9", start=9))
    bench.store.put(f"{LOG}.trigger.7.log", text_of("t2", "t3", start=2))
    sources, events, _ = bench.read(ti)
    assert events == ["w0", "w1", "t2", "t3", "w9"]
    assert "2 sessions" in sources[0]


def test_an_executors_lines_are_shown_once(ti, bench, log_server):
    from airflow.executors.base_executor import BaseExecutor

    class PodExecutor(BaseExecutor):
        shown = 2

        def get_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[str]]:
            return ["Attempting to fetch logs from pod p"], ["\n".join(f"pod {i}" for i in range(self.shown))]

    executor = PodExecutor()
    ti.hostname = "127.0.0.1"
    bench.handler.executor_instances = {bench.handler.DEFAULT_EXECUTOR_KEY: executor}
    sources, events, metadata = bench.read(ti)
    assert "Attempting to fetch logs from pod p" in sources
    assert events == ["pod 0", "pod 1"]
    executor.shown = 4
    _, events, metadata = bench.read(ti, metadata)
    assert events == ["pod 2", "pod 3"]
    assert bench.read(ti, metadata)[1] == []
    assert log_server.asked == []


def test_an_older_attempt_is_read_as_finished(ti, bench, log_server):
    ti.try_number = 2
    ti.hostname = "127.0.0.1"
    bench.store.put(LOG, text_of("a"))
    _, events, metadata = bench.read(ti)
    assert (events, metadata["end_of_log"]) == (["a"], True)
    assert log_server.asked == []


def test_a_refresh_of_the_ui_reads_only_what_is_new_from_the_storage(ti, bench):
    first = text_of(*(f"line {number}" for number in range(500)))
    bench.store.put(LOG, first)
    _, events, _ = bench.read(ti)
    assert len(events) == 500
    more = text_of("news", start=501)
    bench.store.put(LOG, first + more)
    bench.counting.bytes = 0
    # As the UI asks: for everything, without a position.
    _, events, _ = bench.read(ti)
    assert (len(events), events[-1]) == (501, "news")
    assert bench.counting.bytes < len(more) + 5000 < len(first)
