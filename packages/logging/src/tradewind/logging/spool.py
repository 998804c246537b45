# SPDX-License-Identifier: Apache-2.0
"""Which local files hold bytes that the storage may lack, and who is still writing them.

The local file that the supervisor writes is the spool: nothing is copied. Beside it, one small journal for
each session says which bytes of which file it owns and under which key they are stored:

    <base_log_folder>/.tradewind/sessions/<token>.jsonl

The writing process holds a POSIX record lock (fcntl(2)) on the journal. It belongs to the process and is not
inherited by a forked task, so it is gone as soon as the supervisor is dead. A journal without a lock
is a session that somebody else has to finish. Its lines are appended, never changed; a torn last line is
ignored.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FOLDER", "Journal", "Record", "journals", "open_journal", "read_record", "take_over", "unwritten_journal"]

FOLDER = Path(".tradewind") / "sessions"
"""Below `[logging] base_log_folder`; no log lies in it."""


@dataclass(frozen=True)
class Record:
    """What a journal says.

    Args:
        token: Hexadecimal digits; the session's name.
        log: The log's path, as in `tradewind.logging.layout`.
        path: The local file, relative to the base log folder.
        start: The session's first byte in that file.
        started_ms: Milliseconds since the epoch.
        claim: A key that the session tried to create; it may or may not be the head.
        head: The key of the session's head, once it is known.
        sent: Bytes that the storage has confirmed; what was confirmed last may not be noted yet.
    """

    token: str
    log: str
    path: str
    start: int
    started_ms: int
    claim: str | None = None
    head: str | None = None
    sent: int = 0


class Journal:
    """An open, locked journal.

    Args:
        file: The file; its lock is released when it is closed. None for a journal that the disk refused: it is
            kept in memory, and nobody else knows of the session.
        path: Where it lies.
        record: What it says.
        torn: Its last line may be: a new one begins with a line break.
    """

    def __init__(self, file: IO[str] | None, path: Path, record: Record, *, torn: bool = False) -> None:
        self._file = file
        self._torn = torn
        self.path = path
        self.record = record

    @property
    def written(self) -> bool:
        """Whether it is on the disk."""
        return self._file is not None

    def note(self, **fields: str | int) -> None:
        """Append `claim`, `head`, `path` or `sent`.

        Raises:
            OSError: The disk refused.
        """
        if self._file is not None:
            self._file.write(("\n" if self._torn else "") + json.dumps(fields) + "\n")
            self._file.flush()
            self._torn = False
        self.record = replace(self.record, **fields)  # type: ignore[arg-type] # each field is checked when it is read

    def remove(self) -> None:
        """The session is finished: forget it."""
        if self._file is None:
            return
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Release the lock; the journal stays for whoever finishes the session."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def open_journal(local_base: Path, log: str, path: str, start: int) -> Journal:
    """Begin a session.

    Args:
        local_base: `[logging] base_log_folder`.
        log: The log's path.
        path: The local file, relative to the base.
        start: The session's first byte in it.

    Raises:
        OSError: The disk refused.
    """
    folder = local_base / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    record = _new_record(log, path, start)
    token = record.token
    target = folder / f"{token}.jsonl"
    # The name that readers look for appears only when the lock is held and the first line is there.
    new = folder / f".{token}.new"
    file = new.open("x", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(json.dumps({k: v for k, v in vars(record).items() if v is not None}) + "\n")
        file.flush()
        new.rename(target)
    except BaseException:
        new.unlink(missing_ok=True)
        # A full disk refuses once more what is still to be written.
        with contextlib.suppress(OSError):
            file.close()
        raise
    return Journal(file, target, record)


def unwritten_journal(local_base: Path, log: str, path: str, start: int) -> Journal:
    """Begin a session of which the disk can't be told; the arguments are those of `open_journal`."""
    record = _new_record(log, path, start)
    return Journal(None, local_base / FOLDER / f"{record.token}.jsonl", record)


def _new_record(log: str, path: str, start: int) -> Record:
    # A clock before 1970 would give a number that no reader takes.
    return Record(secrets.token_hex(6), log, path, start, max(0, int(time.time() * 1000)))


def read_record(text: str) -> Record | None:
    """What the text of a journal says; None when not even its first line is whole.

    A line that is torn or foreign is passed over: whoever takes a journal over begins a new line.
    """
    fields: dict[str, Any] = {}
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            fields.update(entry)
    if not all(_fits(name, value) for name, value in fields.items()):
        return None
    try:
        return Record(**fields)
    except TypeError:
        return None


def _fits(name: str, value: object) -> bool:
    if name in {"sent", "start", "started_ms"}:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return name in {"token", "log", "path", "claim", "head"} and isinstance(value, str)


def take_over(path: Path) -> Journal | None:
    """Lock the journal of a session whose writer is gone.

    Args:
        path: The journal.

    Returns:
        None while its writer lives, when it is gone already, or when it can't be understood.
    """
    try:
        file = path.open("r+", encoding="utf-8", errors="replace")
    except OSError:
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        record = read_record(file.read())
        # Somebody may have finished and removed it between our opening and locking it.
        if record is None or not path.exists() or os.fstat(file.fileno()).st_nlink == 0:
            file.close()
            return None
        file.seek(0, os.SEEK_END)
    except OSError:
        file.close()
        return None
    # The writer may have died in the middle of a line.
    return Journal(file, path, record, torn=True)


def journals(local_base: Path) -> Iterator[tuple[Path, Record]]:
    """Every journal that can be understood, live or not, oldest first.

    A process must not open the journals that it holds itself: closing any handle of a file gives up its
    POSIX locks. Call this from a process that records nothing.

    Args:
        local_base: `[logging] base_log_folder`.
    """
    found = []
    for path in (local_base / FOLDER).glob("*.jsonl"):
        with contextlib.suppress(OSError):
            record = read_record(path.read_text(encoding="utf-8", errors="replace"))
            if record is not None:
                found.append((record.started_ms, path, record))
    for _, path, record in sorted(found, key=lambda item: (item[0], item[1])):
        yield path, record
