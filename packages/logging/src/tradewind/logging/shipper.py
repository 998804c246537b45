# SPDX-License-Identifier: Apache-2.0
"""Sends what a process writes into its local log files to the storage, while it writes.

One daemon thread for each process, started with the first line and gone when nothing is left to send. It
looks at the sizes of the registered files and sends what is new; it keeps no copy of any line, and the
local file, which is already masked and in order, is the only buffer. While a session runs, its last object is
replaced by a larger one until it has `part_bytes`; then the next object begins (see `layout`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tradewind.logging import health, layout, spool
from tradewind.logging.exceptions import StorageError, TradewindLoggingError
from tradewind.logging.metrics import Meter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tradewind.logging.config import LogSettings
    from tradewind.logging.store import Store

__all__ = ["Shipper", "Stats"]

log = logging.getLogger("tradewind.logging")

LOOK_SECONDS = 1.0
QUIET_LOOKS = 10
RETRY_MOST_SECONDS = 30.0
COMPLETE_MOST_SECONDS = 60.0
COMPLETE_BYTES_PER_SECOND = 100e6
REOPEN_AFTER_FAILURES = 5
REOPEN_SECONDS = 5.0
SENDERS = 4
MEASURE_SECONDS = 30.0


@dataclass
class Stats:
    """What a shipper did so far.

    Args:
        puts: Objects written.
        put_bytes: Bytes written, replaced ones included.
        failures: Attempts that the storage refused.
        bytes_at_risk: Bytes of the session last looked at that only this machine has.
        last_error: The last refusal, or None.
    """

    puts: int = 0
    put_bytes: int = 0
    failures: int = 0
    bytes_at_risk: int = 0
    last_error: str | None = None


@dataclass
class _Stream:
    log: str
    path: Path
    start: int
    journal: spool.Journal
    began: float
    due: float
    head: str | None = None
    sealed: int = 0
    open_bytes: int = 0
    retries: int = 0
    quiet_looks: int = 0
    finishing: bool = False
    ended: threading.Event = field(default_factory=threading.Event)
    progressed: float = 0.0
    patience: float = 0.0
    complete_at: float = 0.0

    @property
    def acknowledged(self) -> int:
        return self.sealed + self.open_bytes


class Shipper:
    """Sends the local log files of one process.

    Args:
        settings: How.
        open_store: Opens the storage; called in the thread, because it may import an SDK for seconds.
    """

    def __init__(self, settings: LogSettings, open_store: Callable[[], Store]) -> None:
        self.settings = settings
        self.stats = Stats()
        self._open_store = open_store
        self._store: Store | None = None
        self._streams: dict[str, _Stream] = {}
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._budget = _Budget(settings.max_puts_per_second)
        self._store_lock = threading.Lock()
        self._opened = 0.0
        self._refused = 0
        self._meter = Meter()
        self._measured = 0.0
        os.register_at_fork(after_in_child=self._forget)

    def begin(self, log_path: str, path: Path, start: int) -> None:
        """Begin to send a file.

        Args:
            log_path: The log's path, as in `layout`.
            path: The local file.
            start: Its first byte of this session.

        A journal that can't be written, because the disk is full for example, is tried again; until then nothing
        is sent: a sweeper could not know that it was. What is left at the end is sent without one.
        """
        now = time.monotonic()
        relative = path.relative_to(self.settings.local_base).as_posix()
        try:
            journal = spool.open_journal(self.settings.local_base, log_path, relative, start)
        except OSError as error:
            log.warning("%s is not recorded until its journal can be written: %s", log_path, error)
            journal = spool.unwritten_journal(self.settings.local_base, log_path, relative, start)
        due = now + self.settings.first_flush_seconds
        stream = _Stream(log_path, path, start, journal, began=now, due=due, progressed=now, complete_at=now)
        with self._wake:
            before = self._streams.pop(log_path, None)
            self._streams[log_path] = stream
            self._start()
            self._wake.notify_all()
        if before is not None:
            # The same log is opened again before its last session ended: that one is left to the sweeper.
            before.journal.close()
            before.ended.set()

    def end(self, log_path: str, path: Path, *, wait: bool) -> bool:
        """The session is over: send the rest and tidy up.

        Args:
            log_path: The log's path.
            path: The local file.
            wait: Wait for it, at most `upload_timeout_seconds` without progress.

        Returns:
            True when the storage has all of it (always, if not waited for). Otherwise the file and its
            journal stay for the sweeper, and this process goes on trying for as long as it lives.
        """
        with self._wake:
            known = log_path in self._streams
        if not known:
            if not path.is_file() or not path.stat().st_size:
                return True
            # No line went through our processor: then the whole file is one session.
            self.begin(log_path, path, 0)
        with self._wake:
            stream = self._streams[log_path]
            if not wait:
                self._set_aside(stream)
            stream.finishing = True
            stream.due = stream.progressed = time.monotonic()
            self._start()
            self._wake.notify_all()
        if not wait:
            return True
        while not stream.ended.wait(0.05):
            patience = max(stream.patience, self.settings.upload_timeout_seconds)
            if time.monotonic() - stream.progressed > patience:
                self._meter.count("left_behind")
                log.warning(
                    "%s: the storage makes no progress (%s); %d bytes stay in %s for the sweeper",
                    log_path,
                    self.stats.last_error or "no answer",
                    max(0, self._size(stream) - stream.acknowledged),
                    stream.path,
                )
                return False
        return True

    def _set_aside(self, stream: _Stream) -> None:
        # The triggerer opens the same name again with "wb"; what has not been sent yet must not be truncated.
        aside = stream.path.with_name(f"{stream.path.name}.{stream.journal.record.token}.done")
        with contextlib.suppress(OSError):
            stream.path.rename(aside)
            stream.path = aside
            self._streams.pop(stream.log, None)
            self._streams[f"{stream.log}#{stream.journal.record.token}"] = stream
            # Last, because the disk may refuse; the sweeper finds the file by the token too.
            stream.journal.note(path=aside.relative_to(self.settings.local_base).as_posix())

    def _forget(self) -> None:
        # In a forked child: neither the thread nor the sessions are ours. Closing our copies of the journals'
        # handles gives up no lock of the parent.
        for stream in self._streams.values():
            stream.journal.close()
        self.__dict__.update(
            _streams={},
            _wake=threading.Condition(),
            _thread=None,
            _store=None,
            _store_lock=threading.Lock(),
            _opened=0.0,
            _refused=0,
            _budget=_Budget(self.settings.max_puts_per_second),
            stats=Stats(),
        )

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tradewind-log-shipper", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._streams:
                    self._thread = None
                    break
                now = time.monotonic()
                due = deque(stream for stream in self._streams.values() if stream.due <= now)
                if not due:
                    self._wake.wait(max(0.01, min(s.due for s in self._streams.values()) - now))
                    continue
            # Daemon threads and no pool: a pool's are joined when the process exits, however long a
            # storage hangs.
            helpers = [
                threading.Thread(target=self._serve_all, args=(due,), name="tradewind-log-sender", daemon=True)
                for _ in range(min(SENDERS, len(due)) - 1)
            ]
            for helper in helpers:
                helper.start()
            self._serve_all(due)
            for helper in helpers:
                helper.join()
            self._measure()
        # The gauges must not keep what was true before the end.
        self._measured = 0.0
        self._measure()

    def _measure(self) -> None:
        now = time.monotonic()
        if now - self._measured < MEASURE_SECONDS or not self._meter.enabled:
            return
        self._measured = now
        with self._wake:
            # Reading a journal of our own would give up its lock.
            own = {stream.journal.path: stream.journal.record for stream in self._streams.values()}
        spooled = health.look(self.settings.local_base, own)
        self._meter.level("bytes_at_risk", spooled.bytes_at_risk)
        self._meter.level("sessions", spooled.sessions)

    def _serve_all(self, due: deque[_Stream]) -> None:
        while True:
            try:
                stream = due.popleft()
            except IndexError:
                return
            self._serve(stream)

    def _serve(self, stream: _Stream) -> None:
        try:
            if not stream.journal.written and not self._write_journal(stream) and not stream.finishing:
                stream.due = time.monotonic() + self.settings.flush_interval_seconds
                return
            done = self._finish(stream) if stream.finishing else self._send(stream)
        except Exception as error:  # noqa: BLE001 - a task must not notice what happens in here
            self._failed(stream, error)
            return
        stream.retries = 0
        if done:
            with self._wake:
                for key in [key for key, value in self._streams.items() if value is stream]:
                    del self._streams[key]
            stream.ended.set()

    def _failed(self, stream: _Stream, error: Exception) -> None:
        self.stats.failures += 1
        self._meter.count("put_failures")
        text = str(error) if isinstance(error, (TradewindLoggingError, OSError)) else type(error).__name__
        if self.stats.last_error != text:
            log.warning("%s is not in the storage yet: %s", stream.log, text)
        self.stats.last_error = text
        # A new store is worth trying soon.
        stream.retries = 1 if self._reconsider(error) else stream.retries + 1
        stream.patience = 0.0
        delay = min(RETRY_MOST_SECONDS, 0.5 * 2 ** min(stream.retries, 6))
        stream.due = time.monotonic() + delay

    def _storage(self) -> Store:
        with self._store_lock:
            if self._store is None:
                self._store = self._open_store()
                self._opened = time.monotonic()
            return self._store

    def _reconsider(self, error: Exception) -> bool:
        """Give a store up whose credentials the storage refuses, or that fails again and again.

        The next one is opened with the connection that Airflow gave last, and with credentials read anew.
        Returns True when it was given up.
        """
        if not isinstance(error, StorageError):
            return False
        with self._store_lock:
            self._refused += 1
            if self._store is None or not (_is_refusal(error) or self._refused >= REOPEN_AFTER_FAILURES):
                return False
            # Opening may ask an identity provider: not for each of a triggerer's thousand logs.
            if time.monotonic() - self._opened < REOPEN_SECONDS:
                return False
            # fsspec gives out the same object, with the same credentials, for the same arguments.
            type(self._store.filesystem).clear_instance_cache()
            self._store = None
            self._refused = 0
            return True

    def _write_journal(self, stream: _Stream) -> bool:
        record = stream.journal.record
        with contextlib.suppress(OSError):
            journal = spool.open_journal(self.settings.local_base, record.log, record.path, record.start)
            if record.claim or record.head:
                known = {"claim": record.claim or "", "head": record.head or ""}
                journal.note(**{name: value for name, value in known.items() if value})
            stream.journal = journal
            return True
        return False

    def _note(self, stream: _Stream, **fields: str) -> None:
        try:
            stream.journal.note(**fields)
        except OSError:
            # While the task runs there is time to wait for room on the disk.
            if not stream.finishing:
                raise
            stream.journal.record = replace(stream.journal.record, **fields)  # type: ignore[arg-type] # all are texts

    def _size(self, stream: _Stream) -> int:
        try:
            return max(0, stream.path.stat().st_size - stream.start)
        except FileNotFoundError:
            return 0

    def _send(self, stream: _Stream) -> bool:
        """Send whole lines that are new; returns False: the session goes on."""
        size = self._size(stream)
        pending = size - stream.acknowledged
        self.stats.bytes_at_risk = pending
        looked = now = time.monotonic()
        if pending > 0:
            self._send_up_to(stream, size, whole_lines=True)
            now = time.monotonic()
            economy = now - stream.began > self.settings.economy_after_seconds
            interval = self.settings.economy_interval_seconds if economy else self.settings.flush_interval_seconds
            stream.quiet_looks = 0
        else:
            # What a look finds is sent at once. So a file that has been quiet, like the log of one of a triggerer's
            # thousand waits, is looked at no more often than the interval asks for.
            stream.quiet_looks += 1
            interval = self.settings.flush_interval_seconds
            if stream.quiet_looks < QUIET_LOOKS:
                interval = min(LOOK_SECONDS, interval)
        stream.complete_at = looked
        stream.due = now + interval
        return False

    def _send_up_to(self, stream: _Stream, end: int, *, whole_lines: bool) -> None:
        part = self.settings.part_bytes
        with stream.path.open("rb") as file:
            while stream.acknowledged < end:
                file.seek(stream.start + stream.sealed)
                data = file.read(min(part, end - stream.sealed))
                full = len(data) >= part
                cut = data.rfind(b"\n") + 1
                # A line longer than a part is the only one that is cut.
                if cut and (full or whole_lines):
                    data = data[:cut]
                elif whole_lines and not full:
                    return
                if len(data) > stream.open_bytes:
                    self._put(stream, data)
                if not full:
                    return
                stream.sealed += len(data)
                stream.open_bytes = 0

    def _put(self, stream: _Stream, data: bytes) -> None:
        store = self._storage()
        self._budget.wait()
        if stream.head is None:
            self._claim(stream, store, data)
        else:
            store.put(layout.part_key(stream.head, stream.sealed), data)
        stream.open_bytes = len(data)
        self._count(stream, len(data))
        self._meter.took("lag", time.monotonic() - stream.complete_at)
        with contextlib.suppress(OSError):
            # For whoever wants to know what only this disk has; nothing depends on it.
            stream.journal.note(sent=stream.acknowledged)

    def _claim(self, stream: _Stream, store: Store, data: bytes) -> None:
        """Find a head of our own: the log's name if it is free, else one that nobody else has."""
        record = stream.journal.record
        if record.claim is None:
            self._note(stream, claim=stream.log)
            # An answer that got lost makes the client try again, and then find what it has just created.
            if store.create(stream.log, data) or self._has(store, stream.log, data):
                stream.head = stream.log
                self._note(stream, head=stream.head)
                return
        # After a failed attempt the claim is doubtful: the object may be ours, or another session's.
        elif self._is_ours(stream, store):
            stream.head = stream.log
            self._note(stream, head=stream.head)
            store.put(stream.head, data)
            return
        stream.head = layout.session_key(stream.log, record.started_ms, record.token)
        self._note(stream, head=stream.head)
        store.put(stream.head, data)

    def _is_ours(self, stream: _Stream, store: Store) -> bool:
        size = store.list(stream.log).get(stream.log)
        if size is None:
            # Never arrived: claim again.
            with stream.path.open("rb") as file:
                file.seek(stream.start)
                data = file.read(min(self.settings.part_bytes, self._size(stream)))
                return store.create(stream.log, data) or self._has(store, stream.log, data)
        if not 0 < size <= min(self.settings.part_bytes, self._size(stream)):
            return False
        with stream.path.open("rb") as file:
            file.seek(stream.start)
            return file.read(size) == store.read(stream.log)

    @staticmethod
    def _has(store: Store, key: str, data: bytes) -> bool:
        """Whether an object has just these bytes; each line has its time, so no other session's has."""
        if not store.backend.create_exclusive:
            return False
        with contextlib.suppress(FileNotFoundError):
            return store.read(key, 0, len(data) + 1) == data
        return False

    def _count(self, stream: _Stream, size: int) -> None:
        self.stats.puts += 1
        self.stats.put_bytes += size
        self._meter.count("puts")
        self._meter.count("put_bytes", size)
        self.stats.last_error = None
        self._refused = 0
        stream.progressed = time.monotonic()

    def _finish(self, stream: _Stream) -> bool:
        """Send the rest, leave one object, and tidy up locally; returns True: nothing is left to do."""
        size = self._size(stream)
        if size:
            if stream.sealed == 0 and size < self.settings.part_bytes:
                self._send_up_to(stream, size, whole_lines=False)
            # The local copy is given up only for what the storage itself says that it has: objects written
            # earlier may have been deleted since.
            if stream.head is None or self._storage().list(stream.head).get(stream.head) != size:
                self._replace_by_whole(stream, size)
        if self._size(stream) != size:
            return False
        journal = stream.journal
        journal.remove()
        # What stands before our first byte belongs to somebody else, and may not be stored: the sweeper looks.
        if stream.start == 0 and stream.path.exists() and not self._others(stream):
            if self.settings.delete_local_logs or stream.path.suffix == ".done":
                stream.path.unlink(missing_ok=True)
            else:
                # As Airflow's own remote logging does: a session that resumes here starts with an empty file.
                os.truncate(stream.path, 0)
        return True

    def _replace_by_whole(self, stream: _Stream, size: int) -> None:
        store = self._storage()
        if stream.head is None and not stream.journal.written:
            record = stream.journal.record
            stream.head = layout.session_key(stream.log, record.started_ms, record.token)
        elif stream.head is None:
            self._send_up_to(stream, min(size, self.settings.part_bytes), whole_lines=False)
        head = stream.head or stream.log

        def progress(done: int) -> None:
            stream.progressed = time.monotonic()
            # With the last byte there, the storage puts the parts together, and says nothing meanwhile.
            stream.patience = min(COMPLETE_MOST_SECONDS, size / COMPLETE_BYTES_PER_SECOND) if done >= size else 0.0

        self._budget.wait()
        store.put_file(head, stream.path, stream.start, stream.start + size, progress=progress)
        self._count(stream, size)
        stored = self._whole(store, head, size)
        stream.sealed, stream.open_bytes = size, 0
        parts = [key for key in stored if layout.split_key(key)[0] == head and key != head]
        if parts:
            store.delete(parts)
            # Somebody who puts the parts together elsewhere may have replaced the head by less meanwhile.
            self._whole(store, head, size)

    @staticmethod
    def _whole(store: Store, head: str, size: int) -> dict[str, int]:
        stored = store.list(head)
        if stored.get(head) != size:
            raise TradewindLoggingError(f"{head}: the storage has {stored.get(head)} bytes, expected {size}")
        return stored

    def _others(self, stream: _Stream) -> bool:
        """Whether another unfinished session has bytes in the same file; it is emptied only without one."""
        path = stream.path.relative_to(self.settings.local_base).as_posix()
        mine = {other.journal.path for other in self._streams.values()}
        for other in (self.settings.local_base / spool.FOLDER).glob("*.jsonl"):
            # Reading a journal of our own would give up its lock.
            if other in mine:
                continue
            with contextlib.suppress(OSError):
                record = spool.read_record(other.read_text(encoding="utf-8", errors="replace"))
                if record is not None and record.path == path:
                    return True
        return False


def _is_refusal(error: BaseException) -> bool:
    """Whether the storage refused the credentials, as far as its SDK tells."""
    cause: BaseException | None = error
    while cause is not None:
        codes = {getattr(cause, name, None) for name in ("code", "status", "status_code") if _is_code(cause, name)}
        if isinstance(cause, PermissionError) or codes & {401, 403} or type(cause).__name__ in _REFUSALS:
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _is_code(error: BaseException, name: str) -> bool:
    return isinstance(getattr(error, name, None), int)


_REFUSALS = frozenset(
    {
        "ClientAuthenticationError",
        "CredentialRetrievalError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "RefreshError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
    }
)


class _Budget:
    """A token bucket: at most `rate` puts a second, over all sessions of the process."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for the next free place."""
        with self._lock:
            now = time.monotonic()
            place = max(now, self._next)
            self._next = place + 1 / self._rate
        if place > now:
            time.sleep(place - now)
