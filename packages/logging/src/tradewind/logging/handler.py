# SPDX-License-Identifier: Apache-2.0
"""`TradewindTaskHandler`: how the api-server reads a task's log.

Three places may hold lines: the storage, this machine's own files (the spool of a worker that runs here) and
the log server of the worker. Each gives only the bytes that the ones before it lack, so no line is shown
twice; Airflow's own handler shows all of them and drops neighbours that are equal.
"""

from __future__ import annotations

import os
import tempfile
import time
import weakref
import zlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from airflow.utils.log.file_task_handler import (
    _STATES_WITH_COMPLETED_ATTEMPT,
    FileTaskHandler,
    StructuredLogMessage,
    _get_compatible_log_stream,
    _log_stream_to_parsed_log_stream,
)
from airflow.utils.state import State, TaskInstanceState

from tradewind.logging import layout, spool
from tradewind.logging.cache import CachedStore, SessionCache
from tradewind.logging.exceptions import StorageError, TradewindLoggingError
from tradewind.logging.layout import Session
from tradewind.logging.reader import (
    Portion,
    RemoteReader,
    Tail,
    complete_lines,
    end_of,
    first_bytes,
    missing,
    ordered,
    start_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow.models.taskinstance import TaskInstance
    from airflow.models.taskinstancehistory import TaskInstanceHistory
    from airflow.utils.log.file_task_handler import LogHandlerOutputStream, LogMetadata

    from tradewind.logging.config import LogSettings
    from tradewind.logging.store import Store

__all__ = ["CURSOR", "TradewindTaskHandler"]

CURSOR = "tradewind_cursor"
"""Our key in the metadata that Airflow carries from one poll to the next inside the continuation token."""

_EXECUTOR = "!executor"
_PREFIX_BYTES = 1024
_LIVE = (TaskInstanceState.RUNNING, TaskInstanceState.DEFERRED)


class TradewindTaskHandler(FileTaskHandler):
    """Reads logs from the storage and from this machine, and asks a worker only if both are silent.

    Args:
        base_log_folder: `[logging] base_log_folder`.
        max_bytes: As in Airflow's handler.
        backup_count: As in Airflow's handler.
        delay: As in Airflow's handler.
        source: Gives the storage and the settings for each reading; from Airflow's configuration when None. It
            may raise `TradewindLoggingError`: then what this machine has is shown.
    """

    def __init__(
        self,
        base_log_folder: str,
        max_bytes: int = 0,
        backup_count: int = 0,
        delay: bool = False,
        *,
        source: Callable[[], tuple[Store, LogSettings]] | None = None,
    ) -> None:
        super().__init__(base_log_folder, max_bytes, backup_count, delay)
        self._source = source
        self._cache: SessionCache | None = None

    def _read(
        self,
        ti: TaskInstance | TaskInstanceHistory,
        try_number: int,
        metadata: LogMetadata | None = None,
    ) -> tuple[LogHandlerOutputStream, LogMetadata]:
        log = self._render_filename(ti, try_number)
        end_of_log = ti.try_number != try_number or ti.state not in _LIVE
        given = dict(metadata or {})
        # read_log_stream takes log_pos away when it wants everything again.
        cursor: dict[str, int] | None = given.get(CURSOR) if "log_pos" in given else None  # type: ignore[assignment]

        # First this machine: what is sent and deleted after that is in the storage when it is listed or read.
        local = self._local_tails(log)
        plan = self._plan(log, live=not end_of_log)
        _add_local(plan, local)
        executor_lines = self._executor_lines(ti, try_number, plan)
        self._add_served(ti, plan, end_of_log=end_of_log, executor=executor_lines is not None)

        portions = _resume(plan, cursor or {})
        if not end_of_log:
            portions = complete_lines(plan.store, portions, plan.block_bytes)
        following = {**(cursor or {}), **{_name(plan, portion): portion.end for portion in portions}}
        extra = _new_executor_lines(executor_lines or [], cursor or {}, following)
        lines = ordered(plan.store, portions, plan.block_bytes, *([extra] if extra else []))
        messages = (message for _, _, message in _log_stream_to_parsed_log_stream(lines))

        header: list[StructuredLogMessage] = []
        if cursor is None:
            header = [
                StructuredLogMessage(event="::group::Log message source details"),
                *(StructuredLogMessage(event=source) for source in plan.sources),
                StructuredLogMessage(event="::endgroup::"),
            ]
        answer: dict[str, Any] = {"end_of_log": end_of_log, "log_pos": sum(following.values())}
        if not end_of_log:
            answer[CURSOR] = following
        return chain(header, messages), cast("LogMetadata", answer)

    def _plan(self, log: str, *, live: bool) -> _Plan:
        """What the storage has."""
        plan = _Plan(log)
        try:
            plan.store, plan.settings = self._reading_source()
            if live and plan.settings.read_cache_bytes:
                plan.store = CachedStore(plan.store, self._cache_of(plan.settings))
            plan.place = plan.settings.shown_base
            plan.block_bytes = plan.settings.read_block_bytes
            reader = RemoteReader(plan.store, replace(plan.settings, remote_base=plan.place))
            sessions = reader.sessions(log)
        except TradewindLoggingError as error:
            plan.store = None
            plan.sources.append(f"Could not read {plan.place}: {error}. Lines that are only there are missing below.")
            return plan
        plan.portions = [Portion(s, 0, end_of(s), started=start_of(s)) for s in sessions if s.segments]
        plan.sources.extend(reader.sources(log, sessions))
        if not plan.portions:
            plan.sources[-1] += (
                " yet."
                if live
                else ": the worker wrote nothing, was stopped before its first lines were sent, or they were deleted."
            )
        elif not live:
            plan.sources.extend(
                f"{session.head.rpartition('/')[2]} was not closed by its worker, which was killed or is still "
                f"sending: lines of its last {plan.settings.flush_interval_seconds:g} s may be missing."
                for session in sessions
                if len(session.segments) > 1
            )
        return plan

    def _cache_of(self, settings: LogSettings) -> SessionCache:
        if self._cache is None or self._cache.most_bytes != settings.read_cache_bytes:
            self._cache = SessionCache(settings.read_cache_bytes)
        return self._cache

    def _reading_source(self) -> tuple[Store, LogSettings]:
        if self._source is not None:
            return self._source()
        from tradewind.logging.remote import reading_store

        return reading_store()

    def _local_tails(self, log: str) -> list[tuple[Tail, spool.Record | None]]:
        """What this machine's files hold of a log, session by session where journals tell."""
        base = Path(self.local_base)
        files = list(_local_files(base, log))
        records = [record for _, record in spool.journals(base)] if files else []
        tails: list[tuple[Tail, spool.Record | None]] = []
        for path, size in files:
            name = path.relative_to(base).as_posix()
            owned = sorted((r for r in records if r.path == name), key=lambda record: record.start)
            if not owned:
                tails.append((_tail(path, 0, size, log), None))
            for record, following in zip_longest(owned, owned[1:]):
                end = min(following.start, size) if following else size
                if record.start < end:
                    tails.append((_tail(path, record.start, end - record.start, log), record))
        # A file that was emptied meanwhile has no first bytes: it was sent.
        return [(tail, record) for tail, record in tails if tail.prefix]

    def _executor_lines(self, ti: TaskInstance | TaskInstanceHistory, try_number: int, plan: _Plan) -> list[str] | None:
        if ti.state != TaskInstanceState.RUNNING:
            return None
        response = self._get_executor_get_task_log(ti)(ti, try_number)
        if not response:
            return None
        sources, logs = response
        plan.sources.extend(sources)
        return list(_get_compatible_log_stream(logs)) if sources else None

    def _add_served(
        self, ti: TaskInstance | TaskInstanceHistory, plan: _Plan, *, end_of_log: bool, executor: bool
    ) -> None:
        """Ask the worker's or the triggerer's log server, if nobody else can know."""
        finished = ti.state not in State.unfinished or ti.state in _STATES_WITH_COMPLETED_ATTEMPT
        if plan.has_local_files or executor:
            return
        if end_of_log:
            if plan.portions or not finished:
                return
        elif plan.portions:
            age = _age_seconds(plan)
            if age is None or age <= _fresh_seconds(plan):
                return
            server = "triggerer" if ti.state == TaskInstanceState.DEFERRED else "worker"
            plan.sources.append(
                f"The newest object is {age:.0f} s old; the log server of the {server} was asked for newer lines."
            )
        sources, streams = self._read_from_logs_server(ti, plan.log)
        plan.sources.extend(sources)
        for stream in streams:
            # On disk: its length has to be known before the first line is given out.
            file = _Spooled(stream)
            if file.size:
                _add_unrecorded(plan, _tail(file.path, 0, file.size, plan.log, keep=file))


class _Spooled:
    """Lines in a temporary file, for as long as this object lives."""

    def __init__(self, lines: Iterator[str]) -> None:
        descriptor, name = tempfile.mkstemp(prefix="tradewind-served-")
        self.path = Path(name)
        weakref.finalize(self, self.path.unlink, missing_ok=True)
        with os.fdopen(descriptor, "wb") as file:
            for line in lines:
                file.write(line.encode("utf-8", "surrogateescape") + b"\n")
            self.size = file.tell()


@dataclass
class _Plan:
    """What is known about one log while a reading is prepared."""

    log: str
    store: Store | None = None
    settings: LogSettings | None = None
    block_bytes: int = 4 << 20
    sources: list[str] = field(default_factory=list)
    portions: list[Portion] = field(default_factory=list)
    local_bytes: int = 0
    has_local_files: bool = False
    place: str = "the log storage"
    prefixes: dict[str, bytes] = field(default_factory=dict)

    def stored_prefix(self, portion: Portion) -> bytes:
        """The first bytes of a stored session, read once."""
        head = portion.session.head
        if head not in self.prefixes:
            try:
                self.prefixes[head] = (
                    first_bytes(self.store, portion.session, _PREFIX_BYTES)
                    if self.store is not None and portion.session.segments
                    else b""
                )
            except StorageError:
                self.prefixes[head] = b""
        return self.prefixes[head]

    def stored_as(self, prefix: bytes, but: int | None = None) -> int | None:
        """The number of the stored session that begins like a local one and has no local file yet."""
        for index, portion in enumerate(self.portions):
            if portion.tail is None and index != but:
                stored = self.stored_prefix(portion)
                if _same_beginning(stored, prefix):
                    return index
        return None

    def attach(self, index: int, tail: Tail) -> None:
        """Let a local file continue a stored session."""
        portion = self.portions[index]
        added = max(0, tail.size - portion.end) + sum(size for at, size in portion.session.gaps if at < tail.size)
        self.portions[index] = replace(portion, tail=tail, end=max(portion.end, tail.size))
        self.local_bytes += added
        if tail.size >= end_of(portion.session):
            told = missing(portion.session, self.place)
            self.sources = [source for source in self.sources if source not in told]

    def add(self, head: str, tail: Tail, started: float) -> None:
        """Add a session that only a local file holds."""
        self.portions.append(Portion(Session(head, ()), 0, tail.size, tail, started))
        self.local_bytes += tail.size


def _add_local(plan: _Plan, local: Sequence[tuple[Tail, spool.Record | None]]) -> None:
    plan.has_local_files = bool(local)
    added: dict[Path, int] = {}
    for tail, record in local:
        before = plan.local_bytes
        if record is None:
            _add_unrecorded(plan, tail)
        else:
            _add_recorded(plan, tail, record)
        added[tail.path] = added.get(tail.path, 0) + plan.local_bytes - before
    plan.sources.extend(
        f"{path}: {size} bytes on this machine that the storage does not have" for path, size in added.items() if size
    )


def _add_recorded(plan: _Plan, tail: Tail, record: spool.Record) -> None:
    if record.head is None:
        index = plan.stored_as(tail.prefix)
    else:
        heads = [portion.session.head for portion in plan.portions]
        index = heads.index(record.head) if record.head in heads else None
    if index is not None:
        plan.attach(index, tail)
    else:
        plan.add(record.head or "", tail, record.started_ms / 1000 - 1)


def _add_unrecorded(plan: _Plan, tail: Tail) -> None:
    """Several sessions may follow each other in a file; the stored ones tell where each one begins."""
    while True:
        index = plan.stored_as(tail.prefix)
        if index is None:
            plan.add("", tail, float("-inf"))
            return
        length = plan.portions[index].end
        following = None
        if length < tail.size:
            rest = _tail(tail.path, tail.start + length, tail.size - length, tail.log)
            following = plan.stored_as(rest.prefix, but=index)
        if following is None:
            plan.attach(index, tail)
            return
        plan.attach(index, replace(tail, size=length))
        tail = replace(rest, keep=tail.keep)


def _tail(path: Path, start: int, size: int, log: str, keep: object = None) -> Tail:
    return Tail(path, start, size, _read_prefix(path, start, size), log, keep)


def _same_beginning(one: bytes, other: bytes) -> bool:
    common = min(len(one), len(other))
    # Less than a line may be the same in two sessions.
    enough = common == _PREFIX_BYTES or b"\n" in one[:common] or len(one) == len(other)
    return bool(common) and enough and one[:common] == other[:common]


def _read_prefix(path: Path, start: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(min(size, _PREFIX_BYTES))
    except OSError:
        return b""


def _local_files(base: Path, log: str) -> Iterator[tuple[Path, int]]:
    """A log's files and sizes, if they really lie below the base folder: a link may lead elsewhere."""
    real_base = Path(os.path.realpath(base))
    name = Path(log).name
    for path in sorted((base / log).parent.glob("*")):
        if layout.belongs(name, path.name) and Path(os.path.realpath(path)).is_relative_to(real_base):
            # It may be sent and deleted at any time, or be another user's.
            with suppress(OSError):
                size = path.stat().st_size
                if size and path.is_file() and os.access(path, os.R_OK):
                    yield path, size


def _name(plan: _Plan, portion: Portion) -> str:
    """A session's name in the cursor: the end of its key; before it has one, what its first bytes are."""
    if portion.session.head:
        return portion.session.head.removeprefix(plan.log)
    prefix = portion.tail.prefix if portion.tail else b""
    return f"~{len(prefix)}-{sha256(prefix).hexdigest()[:16]}"


def _resume(plan: _Plan, cursor: Mapping[str, int]) -> list[Portion]:
    """Begin where the former reading ended; sessions without news are left out."""
    nameless = {name: end for name, end in cursor.items() if name.startswith("~")}
    portions = []
    for portion in plan.portions:
        name = portion.session.head.removeprefix(plan.log)
        start = cursor.get(name) if portion.session.head else None
        if start is None and nameless:
            prefix = portion.tail.prefix if portion.tail else plan.stored_prefix(portion)
            start = max((end for known, end in nameless.items() if _begins(prefix, known)), default=None)
        if (start or 0) < portion.end:
            portions.append(replace(portion, start=start or 0))
    return portions


def _begins(prefix: bytes, name: str) -> bool:
    size, _, digest = name[1:].partition("-")
    length = int(size)
    return len(prefix) >= length > 0 and sha256(prefix[:length]).hexdigest()[:16] == digest


def _new_executor_lines(lines: Sequence[str], cursor: Mapping[str, int], following: dict[str, int]) -> list[str]:
    """An executor gives the last lines again and again: those behind the last one that was shown."""
    if not lines:
        return []
    sums = [zlib.crc32(line.encode("utf-8", "replace")) for line in lines]
    following[_EXECUTOR] = sums[-1]
    shown = cursor.get(_EXECUTOR)
    new = next((len(lines) - at for at, value in enumerate(reversed(sums)) if value == shown), 0)
    return list(lines[new:])


def _fresh_seconds(plan: _Plan) -> float:
    return 2 * plan.settings.flush_interval_seconds + 10 if plan.settings else 0.0


def _age_seconds(plan: _Plan) -> float | None:
    """How long ago an object of the log changed; None where the storage does not tell."""
    if plan.store is None:
        return None
    try:
        stored = list(plan.store.walk(plan.log.rpartition("/")[0]))
    except StorageError:
        return None
    changes = [item.modified for item in stored if item.modified and layout.belongs(plan.log, item.key)]
    return time.time() - max(changes) if changes else None
