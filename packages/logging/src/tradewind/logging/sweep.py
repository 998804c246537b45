# SPDX-License-Identifier: Apache-2.0
"""Uploading what an earlier process left on the disk: nothing is lost with a supervisor as long as its disk survives.

Who may touch what:

* A session whose journal is locked has a living writer and is left alone (`tradewind.logging.spool`).
* One sweeper at a time works in a folder: it holds a POSIX record lock (fcntl(2)) on `.tradewind/sweep.lock`,
  and the next one waits. A POSIX lock, unlike flock(2), is not inherited by a process that is forked meanwhile, so
  it ends with the sweeper, and it works between the machines that share an NFS volume. What it can't do is to
  keep two threads of one process apart, and closing any handle of the file gives it up: so each process
  has a lock for its own threads too, and opens the file only under it.
* A file that no journal names is uploaded when nothing has changed it for a while and no process of this machine
  has it open. A process of another machine is not seen: there the age alone decides.
* A local file is emptied when all of its bytes are stored and a write lease (fcntl(2), F_SETLEASE) says that
  no process has it open; where there are no leases, /proc is asked.

Every step can be interrupted: a file without journal gets one before its first byte is sent, so that whoever
comes next knows which object was begun.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import signal
import stat
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tradewind.logging import layout, maintenance, spool
from tradewind.logging.exceptions import LogSettingsError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tradewind.logging.config import LogSettings
    from tradewind.logging.store import Store

__all__ = ["EXCLUDED", "LOCK", "Action", "sweep"]

EXCLUDED = frozenset({".tradewind", "dag_processor", "dag_processor_manager", "scheduler"})
"""Folders at the top of the base log folder that hold no task logs."""

LOCK = Path(".tradewind") / "sweep.lock"
"""Below the base log folder: locked by the sweeper at work."""

_ASIDE = ".done"
_CLOCK_SECONDS = 3600.0
_FIRST_BYTES = 1 << 16
_LOG_NAME = re.compile(r"[^.].*\.log(\..+)?")
_POLL_SECONDS = 0.1
_THREADS = threading.Lock()


@dataclass(frozen=True)
class Action:
    """What was done about one session or file.

    Args:
        path: The local file, relative to the base log folder.
        log: The log's path.
        head: The object that holds it; empty when none does.
        bytes: Size of the session.
        outcome: `uploaded`; `stored`: was there already; `merged`: nothing local was left, the stored parts were put
            together; `empty`: there was nothing to store; `would-upload`: a dry run; `incomplete`: nothing
            local was left and the stored parts have gaps; `lost`: neither local nor stored bytes were found;
            `skipped`: can't be understood; `failed`: the storage or the disk refused, everything was kept.
        reason: More about the outcome.
    """

    path: str
    log: str
    head: str
    bytes: int
    outcome: Literal["empty", "failed", "incomplete", "lost", "merged", "skipped", "stored", "uploaded", "would-upload"]
    reason: str = ""


def sweep(
    store: Store,
    settings: LogSettings,
    *,
    folder: Path | None = None,
    min_age_seconds: float = 60.0,
    dry_run: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Action]:
    """Upload what earlier processes left.

    Call it from a process that records nothing itself (`tradewind.logging.spool.journals`).

    Args:
        store: The storage.
        settings: The settings.
        folder: A folder below the base log folder to sweep only that, or a base log folder of its own, for example
            of another worker's volume.
        min_age_seconds: A file without journal that was changed within this time is left alone.
        dry_run: Only tell; nothing is written, here or there.
        progress: Told a local file, the bytes sent so far and the bytes to send.

    Raises:
        LogSettingsError: The folder does not exist, can't be written, or is the storage itself.
    """
    scope = _scope(store, settings, folder)
    if scope is None:
        return []
    base, below = scope
    sweeper = _Sweeper(store, settings, base, below, min_age_seconds=min_age_seconds, progress=progress)
    if dry_run:
        return sweeper.plan()
    with _locked(base):
        return sweeper.run()


class _Journals:
    """Which sessions each local file has, finished ones that were seen too.

    A journal is read again when it has changed, but never one that this process holds: closing it would give up
    its lock.
    """

    def __init__(self, base: Path) -> None:
        self._folder = base / spool.FOLDER
        self._known: dict[Path, spool.Record | None] = {}
        self._versions: dict[Path, tuple[int, int]] = {}
        self._held: Path | None = None

    @contextlib.contextmanager
    def holding(self, journal: spool.Journal) -> Iterator[None]:
        """The journal is held; it is closed at the end."""
        self._held = journal.path
        self._known[journal.path] = journal.record
        try:
            yield
        finally:
            journal.close()
            self._held = None

    def refresh(self) -> dict[Path, spool.Record | None]:
        """The journals that exist now, by path; None for one that can't be understood."""
        present = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            if path != self._held:
                try:
                    found = path.stat()
                    version = (found.st_size, found.st_mtime_ns)
                    if self._versions.get(path) != version:
                        self._known[path] = _valid(spool.read_record(path.read_text(encoding="utf-8")))
                        self._versions[path] = version
                except OSError:
                    # It was finished and removed meanwhile, or is another user's.
                    continue
                except (TypeError, ValueError, RecursionError):
                    self._known[path] = None
            present[path] = self._known[path]
        return present

    def named(self) -> set[str]:
        """The local files that sessions have which are not finished."""
        return {
            name for record in self.refresh().values() if record is not None for name in (record.path, _aside(record))
        }

    def end(self, record: spool.Record, size: int) -> int:
        """Where a session stops in its file: at the next one's start.

        By start and not by time, because the clocks of machines that share a volume differ.
        """
        mine = (record.start, record.started_ms, record.token)
        later = [
            other.start
            for other in self._known.values()
            if other is not None and other.path == record.path and (other.start, other.started_ms, other.token) > mine
        ]
        return min([size, *later])


class _Sweeper:
    def __init__(
        self,
        store: Store,
        settings: LogSettings,
        base: Path,
        below: Path,
        *,
        min_age_seconds: float,
        progress: Callable[[str, int, int], None] | None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._base = base
        self._below = below
        self._min_age_seconds = min_age_seconds
        self._progress = progress
        self._journals = _Journals(base)
        self._finished: dict[str, list[tuple[int, int]]] = {}

    def plan(self) -> list[Action]:
        """What `run` would do."""
        actions = []
        for path, record in self._orphans():
            journal = _take_over(path)
            if journal is None:
                continue
            journal.close()
            size = _size(self._base / record.path) or 0
            count = max(0, self._journals.end(record, size) - record.start)
            head = record.head or record.claim or ""
            actions.append(Action(record.path, record.log, head, count, "would-upload", "not finished by its writer"))
        for relative in self._leftovers(set()):
            size = _size(self._base / relative) or 0
            log = _log_of_file(relative)
            actions.append(Action(relative, log, "", size, "would-upload", "no journal names it"))
        return actions

    def run(self) -> list[Action]:
        """Sweep; the lock must be held."""
        actions = []
        for path, record in self._orphans():
            journal = _take_over(path)
            if journal is None:
                continue
            with self._journals.holding(journal):
                actions.append(self._guard(record.path, record.log, partial(self._finish, journal)))
        skip = {relative for relative in self._finished if self._covered(relative) is not None}
        for relative in self._leftovers(skip):
            actions.append(self._guard(relative, _log_of_file(relative), partial(self._adopt, relative)))
        return self._clean(actions)

    @staticmethod
    def _guard(path: str, log: str, work: Callable[[], Action]) -> Action:
        try:
            return work()
        except StorageError as error:
            return Action(path, log, "", 0, "failed", str(error))
        except OSError as error:
            return Action(path, log, "", 0, "failed", f"{path}: {error.strerror or type(error).__name__}")

    def _orphans(self) -> Iterator[tuple[Path, spool.Record]]:
        present = [(path, record) for path, record in self._journals.refresh().items() if record is not None]
        for path, record in sorted(present, key=lambda item: (item[1].started_ms, item[0])):
            if (self._base / record.path).is_relative_to(self._below):
                yield path, record

    # ---- one session

    def _finish(self, journal: spool.Journal, started_ms: int | None = None) -> Action:
        record = journal.record
        if _size(self._base / _aside(record)) is not None:
            # Its writer ended after it had renamed the file and before it said so.
            journal.note(path=_aside(record))
            record = journal.record
        file = self._base / record.path
        size = _size(file)
        # After the size: whoever wrote a byte below it had its journal before.
        self._journals.refresh()
        limit = self._journals.end(record, size or 0)
        if size is None or record.start >= limit:
            return self._finish_remotely(
                journal, "the local file is gone" if size is None else "nothing is left on disk"
            )
        head = record.head or self._claimed(record, limit)
        end = limit
        if limit == size:
            # A later session that has finished already has no journal that says where it began.
            end = self._unstored(record.log, head, file, record.start, limit)
        count = end - record.start
        if count:
            if head is None:
                head = self._claim(journal, record.start, end, started_ms or record.started_ms)
            stored, sizes = maintenance.find_session(self._store, head)
            if stored is not None and stored.size > count:
                return self._finish_remotely(journal, f"{stored.size} bytes are stored, but only {count} are on disk")
            if sizes.get(head) != count:
                self._upload(head, record.path, record.start, end)
            self._store.delete(key for key in sizes if key != head)
        journal.remove()
        self._finished.setdefault(record.path, []).append((record.start, limit))
        return Action(record.path, record.log, head or "", count, "uploaded" if count else "stored")

    def _finish_remotely(self, journal: spool.Journal, reason: str) -> Action:
        record = journal.record
        head = record.head or layout.session_key(record.log, record.started_ms, record.token)
        session, _ = maintenance.find_session(self._store, head)
        if session is None:
            journal.remove()
            if record.claim is None and record.head is None:
                return Action(record.path, record.log, "", 0, "empty", reason)
            return Action(record.path, record.log, "", 0, "lost", f"{reason}, and nothing of it is stored for sure")
        if session.gaps:
            journal.remove()
            missing = sum(size for _, size in session.gaps)
            return Action(record.path, record.log, head, session.size, "incomplete", f"{reason}, {missing} bytes too")
        maintenance.merge(self._store, session)
        journal.remove()
        return Action(record.path, record.log, head, session.size, "merged", reason)

    def _claimed(self, record: spool.Record, end: int) -> str | None:
        """The key that the session tried to create, if it succeeded."""
        if record.claim is None:
            return None
        if record.claim == layout.session_key(record.log, record.started_ms, record.token):
            return record.claim
        size = self._store.list(record.claim).get(record.claim, 0)
        if not 0 < size <= end - record.start:
            return None
        session = layout.sessions(record.claim, {record.claim: size})[0]
        same = self._same(session, 0, self._base / record.path, record.start)
        return record.claim if same else None

    def _claim(self, journal: spool.Journal, start: int, end: int, started_ms: int) -> str:
        record = journal.record
        journal.note(claim=record.log)
        with (self._base / record.path).open("rb") as file:
            file.seek(start)
            first = file.read(min(_FIRST_BYTES, end - start))
        created = self._store.create(record.log, first)
        head = record.log if created else layout.session_key(record.log, started_ms, record.token)
        journal.note(head=head)
        return head

    def _upload(self, head: str, path: str, start: int, end: int) -> None:
        tell = self._progress
        report = None if tell is None else (lambda done: tell(path, done, end - start))
        self._store.put_file(head, self._base / path, start, end, progress=report)
        size = self._store.list(head).get(head, 0)
        if size != end - start:
            raise StorageError(f"can't write {head}: {size} of {end - start} bytes arrived")

    # ---- files without journal

    def _leftovers(self, skip: set[str]) -> list[str]:
        """Files, relative to the base, that no journal names and nobody writes."""
        candidates = {}
        now = time.time()
        newest, wrong = now - self._min_age_seconds, now + self._min_age_seconds + _CLOCK_SECONDS
        storage = Path(self._store.root).resolve() if self._store.backend.local else None
        for folder, folders, names in os.walk(self._below):
            here = Path(folder)
            if here == self._base:
                folders[:] = [name for name in folders if name not in EXCLUDED]
            folders[:] = sorted(name for name in folders if (here / name).resolve() != storage)
            for name in sorted(names):
                if _LOG_NAME.fullmatch(name) and (self._settings.include_trigger_logs or ".trigger." not in name):
                    with contextlib.suppress(OSError):
                        found = (here / name).lstat()
                        # A time far ahead is a wrong clock's; waiting for it could take years.
                        old = not newest < found.st_mtime <= wrong
                        if stat.S_ISREG(found.st_mode) and found.st_size and old:
                            relative = (here / name).relative_to(self._base).as_posix()
                            candidates[relative] = (found.st_dev, found.st_ino)
        if not candidates:
            return []
        # In this order: a file that was opened, or got a journal, since it was listed is seen.
        held = _open_files()
        named = self._journals.named()
        return [path for path, inode in candidates.items() if path not in named | skip and inode not in held]

    def _adopt(self, relative: str) -> Action:
        file = self._base / relative
        found = file.stat()
        log = _log_of_file(relative)
        end = self._unstored(log, None, file, 0, found.st_size, tail=True)
        if not end:
            self._finished[relative] = [(0, found.st_size)]
            return Action(relative, log, "", found.st_size, "stored")
        journal = spool.open_journal(self._base, log, relative, 0)
        with self._journals.holding(journal):
            return self._finish(journal, int(found.st_mtime * 1000))

    def _unstored(self, log: str, head: str | None, file: Path, start: int, end: int, *, tail: bool = False) -> int:
        """Leave out bytes at the end of a file that other sessions of its log hold.

        Args:
            log: The log's path.
            head: The head of the file's own session, if it is known.
            file: The local file.
            start: First byte to consider.
            end: Byte to stop before.
            tail: A longer session that ends with all of the bytes holds them too: an upload of stock Airflow puts
                what was stored before in front.

        Returns:
            The byte to stop before.
        """
        sessions = [s for s in layout.sessions(log, self._store.list(log)) if s.head != head and s.size and not s.gaps]
        while end > start:
            for session in reversed(sessions):
                size = min(session.size, end - start)
                if (session.size == size or tail) and self._same(session, session.size - size, file, end - size):
                    end -= size
                    sessions.remove(session)
                    break
            else:
                break
        return end

    def _same(self, session: layout.Session, skip: int, file: Path, start: int) -> bool:
        """Tell whether a session's bytes from `skip` on are those of a file from `start` on."""
        with file.open("rb") as local:
            local.seek(start)
            found = maintenance.blocks(self._store, session, skip, block_bytes=self._settings.read_block_bytes)
            return all(local.read(len(block)) == block for block in found)

    # ---- local files

    def _covered(self, relative: str) -> int | None:
        """The size up to which all bytes of a file are stored; None when some at its beginning or middle are not."""
        reach = 0
        for start, end in sorted(self._finished.get(relative, [])):
            if start > reach:
                return None
            reach = max(reach, end)
        return reach

    def _clean(self, actions: list[Action]) -> list[Action]:
        named = self._journals.named()
        kept = {}
        for relative in self._finished:
            size = self._covered(relative)
            if relative not in named and size is not None:
                try:
                    delete = self._settings.delete_local_logs or relative.endswith(_ASIDE)
                    cleaned = _empty(self._base / relative, size, delete=delete)
                    kept[relative] = "" if cleaned else "the local file is kept: a process has it open"
                except OSError as error:
                    kept[relative] = f"the local file is kept: {error.strerror or type(error).__name__}"
        return [
            replace(action, reason=kept[action.path]) if kept.get(action.path) and not action.reason else action
            for action in actions
        ]


def _scope(store: Store, settings: LogSettings, folder: Path | None) -> tuple[Path, Path] | None:
    """The base log folder and the folder to sweep; None when there is nothing yet."""
    local_base = settings.local_base.resolve()
    below = local_base if folder is None else folder.expanduser().resolve()
    if not below.is_dir():
        if folder is None:
            return None
        raise LogSettingsError(f"--folder={str(folder)!r}: expected a folder that exists")
    base = local_base if below.is_relative_to(local_base) else below
    if store.backend.local and Path(store.root).resolve() == base:
        raise LogSettingsError(
            f"[logging] remote_base_log_folder is the base log folder {str(base)!r} itself: expected another folder"
        )
    return base, below


@contextlib.contextmanager
def _locked(base: Path) -> Iterator[None]:
    with _THREADS:
        try:
            (base / LOCK).parent.mkdir(exist_ok=True)
            file = (base / LOCK).open("a")
        except OSError as error:
            raise LogSettingsError(
                f"{str(base)!r}: expected a folder that can be written ({error.strerror or type(error).__name__})"
            ) from error
        with file:
            while True:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if error.errno not in {errno.EACCES, errno.EAGAIN}:
                        raise LogSettingsError(
                            f"{str(base)!r}: expected a file system with locks ({error.strerror})"
                        ) from error
                    # Not a blocking wait: a signal's handler runs between the attempts.
                    time.sleep(_POLL_SECONDS)
            yield


def _valid(record: spool.Record | None) -> spool.Record | None:
    """A record that another process can't use to have a file of somewhere else uploaded or emptied."""
    if record is None:
        return None
    texts = [record.token, record.log, record.path, record.claim or "", record.head or ""]
    numbers = [record.start, record.started_ms]
    if not all(isinstance(text, str) for text in texts) or not all(type(n) is int and n >= 0 for n in numbers):
        return None
    inside = all(text and not Path(text).is_absolute() and ".." not in Path(text).parts for text in texts[:3])
    owned = all(not key or layout.belongs(record.log, key) for key in texts[3:])
    return record if inside and owned else None


def _aside(record: spool.Record) -> str:
    """Where the shipper renames a triggerer's file to when it has ended; the same path if that is done."""
    ending = f".{record.token}{_ASIDE}"
    return record.path if record.path.endswith(ending) else f"{record.path}{ending}"


def _log_of_file(relative: str) -> str:
    """The log's path of a local file that no journal names."""
    return re.sub(r"\.[0-9a-f]+\.done$", "", relative)


def _take_over(path: Path) -> spool.Journal | None:
    try:
        journal = spool.take_over(path)
    except (TypeError, ValueError, RecursionError):
        return None
    if journal is not None and _valid(journal.record) is None:
        journal.close()
        return None
    return journal


def _size(file: Path) -> int | None:
    try:
        found = file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _open_files(*, besides: int | None = None) -> set[tuple[int, int]]:
    """(st_dev, st_ino) of the files that the processes of this machine have open, as far as we may see.

    Args:
        besides: A descriptor of this process that does not count.
    """
    held = set()
    own = f"/proc/{os.getpid()}/fd/{besides}"
    for process in Path("/proc").glob("[0-9]*"):
        # It may have ended, or belong to somebody else.
        with contextlib.suppress(OSError):
            for entry in os.scandir(process / "fd"):
                if entry.path != own:
                    with contextlib.suppress(OSError):
                        found = os.stat(entry.path)  # noqa: PTH116  # a Path for each descriptor costs more than the call
                        held.add((found.st_dev, found.st_ino))
    return held


def _empty(file: Path, size: int, *, delete: bool) -> bool:
    """Empty or delete a file, unless a process has it open or it has grown."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        if not _alone(descriptor) or os.fstat(descriptor).st_size != size:
            return False
        if delete:
            file.unlink()
        else:
            os.ftruncate(descriptor, 0)
    finally:
        # The lease ends here: whoever opens the file meanwhile waits for that.
        os.close(descriptor)
    return True


def _alone(descriptor: int) -> bool:
    lease = getattr(fcntl, "F_SETLEASE", None)
    set_signal = getattr(fcntl, "F_SETSIG", None)
    if lease is not None and set_signal is not None:
        try:
            # Somebody's open() would send SIGIO, which ends a process that does not expect it; SIGURG does not.
            fcntl.fcntl(descriptor, set_signal, signal.SIGURG)
            fcntl.fcntl(descriptor, lease, fcntl.F_WRLCK)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return False
        else:
            return True
    found = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) not in _open_files(besides=descriptor)
