# SPDX-License-Identifier: Apache-2.0
"""Keeping the stored logs tidy: one object for each finished session, no expired logs, nothing damaged unnoticed.

None of it needs the metadata database: the object keys say everything (`tradewind.logging.layout`). An order of
writing before deleting, together with the layout's rule that a session's earlier object wins, makes every step
safe to be interrupted: a reader finds each byte once, before, between and after the steps.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tradewind.logging import layout
from tradewind.logging.exceptions import LogSettingsError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from tradewind.logging.store import Store, Stored

__all__ = [
    "MIN_AGE_SECONDS",
    "READ_BLOCK_BYTES",
    "Compacted",
    "Expired",
    "Finding",
    "blocks",
    "compact",
    "find_session",
    "fsck",
    "log_of",
    "merge",
    "retention",
]

MIN_AGE_SECONDS = 3600.0
"""Objects changed later than this may belong to a session that somebody is writing."""

READ_BLOCK_BYTES = 4 << 20
"""Bytes of one ranged read."""

_LOG = re.compile(r"(?P<log>[^./][^/]*?\.log)(?:\.[^/]*\.log)?(?:\.part\.\d{15})?")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


@dataclass(frozen=True)
class Compacted:
    """What `compact` did with one session.

    Args:
        head: The session's head.
        objects: How many objects it had.
        bytes: Its size.
        outcome: `compacted`; `skipped`: it is incomplete or was changed meanwhile; `failed`: the storage refused.
        reason: Why, unless compacted.
    """

    head: str
    objects: int
    bytes: int
    outcome: Literal["compacted", "failed", "skipped"]
    reason: str = ""


@dataclass(frozen=True)
class Expired:
    """What `retention` did with one log.

    Args:
        log: The log's path.
        objects: How many objects it had.
        bytes: Their size together.
        age_days: Days since the youngest was changed.
        outcome: `deleted`; `expired`: a dry run; `failed`: the storage refused.
        reason: Why it failed.
    """

    log: str
    objects: int
    bytes: int
    age_days: float
    outcome: Literal["deleted", "expired", "failed"]
    reason: str = ""


@dataclass(frozen=True)
class Finding:
    """Something wrong among the stored objects.

    Args:
        id: `truncated`, `orphan`, `duplicated`, `empty` or `temporary`.
        severity: `error`: bytes are missing; `warning`: can be repaired; `info`: was repaired.
        key: The object, or the head of the session.
        message: What is wrong.
        fix: What would help, or what was done.
    """

    id: str
    severity: Literal["error", "info", "warning"]
    key: str
    message: str
    fix: str


def log_of(key: str) -> str | None:
    """The log that an object belongs to; None when it can't be an object of a log.

    Example:
        >>> log_of("dag_id=a/attempt=1.log.trigger.7.log.part.000000004194304")
        'dag_id=a/attempt=1.log'
        >>> log_of("dag_id=a/attempt=1.log.gz") is None
        True
    """
    folder, slash, name = key.rpartition("/")
    match = _LOG.fullmatch(name)
    if match is None or any(part.startswith(".") for part in folder.split("/")):
        return None
    return f"{folder}{slash}{match['log']}"


def find_session(store: Store, head: str) -> tuple[layout.Session | None, dict[str, int]]:
    """A session as it is stored now.

    Args:
        store: The storage.
        head: The session's head.

    Returns:
        The session, None when it has no object, and its objects' sizes in bytes.

    Raises:
        StorageError: The storage refused.
    """
    sizes = {key: size for key, size in store.list(head).items() if layout.split_key(key)[0] == head}
    found = layout.sessions(head, sizes)
    return (found[0] if found else None), sizes


def blocks(
    store: Store, session: layout.Session, start: int = 0, *, block_bytes: int = READ_BLOCK_BYTES
) -> Iterator[bytes]:
    """Bytes of a session, a block at a time.

    Args:
        store: The storage.
        session: The session.
        start: First byte, counting only those that can be read.
        block_bytes: Most bytes of one read.

    Raises:
        StorageError: The storage refused, or an object is gone or shorter than it was.
    """
    skip = start
    for segment in session.segments:
        done = min(skip, segment.size)
        skip -= done
        while done < segment.size:
            size = min(block_bytes, segment.size - done)
            try:
                block = store.read(segment.key, segment.start + done, size)
            except FileNotFoundError as error:
                raise StorageError(f"can't read {segment.key}: it is gone") from error
            if len(block) != size:
                raise StorageError(f"can't read {segment.key}: it was changed meanwhile")
            yield block
            done += size


def merge(store: Store, session: layout.Session) -> None:
    """Replace a session's objects by one that holds its bytes, in bounded memory.

    Args:
        store: The storage.
        session: A session without gaps; the offsets of its parts would mean other bytes otherwise.

    Raises:
        StorageError: The storage refused; every byte is still stored.
        OSError: There is no room for a copy in the temporary folder.
        ValueError: The session has gaps.
    """
    if session.gaps:
        raise ValueError(f"{session.head}: expected a session without gaps, not {session.gaps}")
    found, before = find_session(store, session.head)
    if found != session:
        raise StorageError(f"can't compact {session.head}: it was changed meanwhile")

    def confirm() -> None:
        # Its writer may have put the whole session there while we read: that must not be replaced by less.
        if find_session(store, session.head)[1] != before:
            raise StorageError(f"can't compact {session.head}: it was changed meanwhile")

    if len(session.segments) > 1:
        with tempfile.NamedTemporaryFile(prefix="tradewind-logs-") as copy:
            for block in blocks(store, session):
                copy.write(block)
            copy.flush()
            confirm()
            # Once more at the last moment: an upload of gigabytes takes minutes.
            store.put_file(session.head, Path(copy.name), confirm=confirm)
    _, after = find_session(store, session.head)
    if after.get(session.head, -1) < session.size:
        raise StorageError(
            f"can't compact {session.head}: {after.get(session.head, 0)} of {session.size} bytes arrived"
        )
    store.delete(
        key
        for key, size in after.items()
        if key != session.head and layout.split_key(key)[1] + size <= after[session.head]
    )


def compact(
    store: Store,
    *,
    min_age_seconds: float = MIN_AGE_SECONDS,
    held: Collection[str] = (),
    progress: Callable[[str], None] | None = None,
) -> list[Compacted]:
    """Give every finished session one object.

    Args:
        store: The storage.
        min_age_seconds: A session with an object changed within this time is left alone.
        held: Heads of sessions that somebody is writing, whatever their age.
        progress: Told the head of each session before it is compacted.

    Raises:
        StorageError: The objects can't be listed.
    """
    done = []
    newest = time.time() - min_age_seconds
    for head, objects in _sessions(store).items():
        if len(objects) == 1 or head in held or any(entry.modified > newest for entry in objects):
            continue
        if progress is not None:
            progress(head)
        session = layout.sessions(head, {entry.key: entry.size for entry in objects})[0]
        if session.gaps:
            done.append(Compacted(head, len(objects), session.size, "skipped", "bytes are missing; see fsck"))
            continue
        try:
            merge(store, session)
        except (StorageError, OSError) as error:
            done.append(Compacted(head, len(objects), session.size, "failed", str(error)))
        else:
            done.append(Compacted(head, len(objects), session.size, "compacted"))
    return done


def retention(store: Store, days: float, *, dry_run: bool = False, held: Collection[str] = ()) -> list[Expired]:
    """Delete the logs of which every object is older than some days.

    Objects whose key is not one of a log are never deleted, and neither are those whose age the storage does
    not tell.

    Args:
        store: The storage.
        days: Age in days, above 0.
        dry_run: Only tell.
        held: Heads of sessions that somebody is writing; their logs are kept.

    Raises:
        LogSettingsError: `days` is not above 0.
        StorageError: The objects can't be listed.
    """
    if not days > 0:
        raise LogSettingsError(
            f"[tradewind_logging] retention_days={days}: expected a number of days above 0; 0 keeps every log"
        )
    logs: dict[str, list[Stored]] = defaultdict(list)
    for entry in store.walk():
        log = log_of(entry.key)
        if log is not None:
            logs[log].append(entry)
    kept = {log_of(head) for head in held}
    now = time.time()
    done = []
    for log, objects in logs.items():
        youngest = max(entry.modified for entry in objects)
        age_days = (now - youngest) / 86400
        if log in kept or age_days <= days or any(entry.modified <= 0 for entry in objects):
            continue
        size = sum(entry.size for entry in objects)
        if dry_run:
            done.append(Expired(log, len(objects), size, round(age_days, 1), "expired"))
            continue
        try:
            store.delete(entry.key for entry in objects)
        except StorageError as error:
            done.append(Expired(log, len(objects), size, round(age_days, 1), "failed", str(error)))
        else:
            done.append(Expired(log, len(objects), size, round(age_days, 1), "deleted"))
    return done


def fsck(
    store: Store, *, repair: bool = False, min_age_seconds: float = MIN_AGE_SECONDS, held: Collection[str] = ()
) -> list[Finding]:
    """Find damaged logs, and what interrupted writers left.

    Args:
        store: The storage.
        repair: Delete what holds no byte that isn't stored elsewhere: covered parts, empty heads, temporary files.
        min_age_seconds: A session with an object changed within this time is left alone.
        held: Heads of sessions that somebody is writing; left alone too.

    Raises:
        StorageError: The objects can't be listed.
    """
    findings: list[Finding] = []
    newest = time.time() - min_age_seconds
    for head, objects in _sessions(store).items():
        if head not in held and all(entry.modified <= newest for entry in objects):
            findings += _examine(store, head, objects, repair=repair)
    if store.backend.local:
        for entry in store.walk():
            if _TEMPORARY.fullmatch(entry.key.rpartition("/")[2]) and entry.modified <= newest:
                message = f"{entry.size} bytes of an upload that did not finish"
                findings.append(_mend(store, "temporary", entry.key, message, [entry.key], repair=repair))
    return findings


def _examine(store: Store, head: str, objects: list[Stored], *, repair: bool) -> Iterator[Finding]:
    sizes = {entry.key: entry.size for entry in objects}
    if list(sizes.items()) == [(head, sizes.get(head))] and sizes[head]:
        return
    # A listing of many pages is not of one moment: a session that ended meanwhile looks damaged in it.
    session, sizes = find_session(store, head)
    if session is None:
        return
    sweeper = "if the worker's disk is still there: airflow tradewind-logs sweep"
    for offset, size in session.gaps:
        if offset == 0 and head not in sizes:
            yield Finding(
                "orphan", "error", head, f"{len(sizes)} parts, but the first {size} bytes are missing", sweeper
            )
        else:
            yield Finding("truncated", "error", head, f"{size} bytes from {offset} on are missing", sweeper)
    for key in session.redundant:
        message = f"its {sizes[key]} bytes are in other objects of the session too"
        yield _mend(store, "duplicated", key, message, [key], repair=repair)
    if sizes == {head: 0}:
        yield _mend(store, "empty", head, "the object has no bytes", [head], repair=repair)


def _mend(store: Store, identifier: str, key: str, message: str, keys: list[str], *, repair: bool) -> Finding:
    if not repair:
        return Finding(identifier, "warning", key, message, "airflow tradewind-logs fsck --repair deletes it")
    try:
        store.delete(keys)
    except StorageError as error:
        return Finding(identifier, "warning", key, message, str(error))
    return Finding(identifier, "info", key, message, "deleted")


def _sessions(store: Store) -> dict[str, list[Stored]]:
    found: dict[str, list[Stored]] = defaultdict(list)
    for entry in store.walk():
        if log_of(entry.key) is not None:
            found[layout.split_key(entry.key)[0]].append(entry)
    return found
