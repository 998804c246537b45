# SPDX-License-Identifier: Apache-2.0
"""Whether logs reach the storage: for `airflow tradewind-logs status`, a probe, and the UI's health page.

Two questions are asked: does the storage answer, and what does this machine's disk hold that the storage does not
have. The second one is answered from the journals (`tradewind.logging.spool`), so it covers every process that
records on this machine, also those that were killed, and none of them is asked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import struct
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tradewind.logging import spool
from tradewind.logging.exceptions import StorageError, TradewindLoggingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tradewind.logging.config import LogSettings
    from tradewind.logging.store import Store

__all__ = ["Health", "Spooled", "check", "look", "probe"]

LATE_SECONDS = 60.0
"""A living process whose newest line is not stored after this time is late."""

LEAST_FREE_BYTES = 256 << 20

# struct flock of fcntl(2) on 64-bit Linux: type, whence, start, length, process.
_FLOCK = "@hhqqi"


@dataclass(frozen=True)
class Spooled:
    """What a machine's disk holds that the storage may not have.

    Args:
        sessions: Sessions that are not finished.
        orphans: Those of them whose writer is gone; they wait for a sweeper.
        bytes_at_risk: Bytes of all of them that the storage has not confirmed.
        oldest_seconds: Age of the last line of the session that is late the longest; 0 when none is.
    """

    sessions: int = 0
    orphans: int = 0
    bytes_at_risk: int = 0
    oldest_seconds: float = 0.0


@dataclass(frozen=True)
class Health:
    """Whether logs reach the storage.

    Args:
        status: `healthy`; `degraded`: lines are late, wait for a sweeper, or the disk is nearly full; `unhealthy`:
            the storage can't be used.
        message: Why, for people.
        storage: The storage's URL, without what may be secret.
        latency_seconds: How long the storage took to answer; None when it did not.
        spooled: What this machine holds.
        disk_free_bytes: Free bytes where logs are written; None where there is no such folder.
    """

    status: Literal["degraded", "healthy", "unhealthy"]
    message: str
    storage: str
    latency_seconds: float | None = None
    spooled: Spooled = field(default_factory=Spooled)
    disk_free_bytes: int | None = None


def look(local_base: Path, own: Mapping[Path, spool.Record] | None = None) -> Spooled:
    """Tell what a machine's disk holds that the storage may not have.

    Args:
        local_base: `[logging] base_log_folder`.
        own: Journals that this process holds, with what they say. They are not opened: that would give up their
            locks.
    """
    mine = own or {}
    found: dict[Path, tuple[spool.Record, bool]] = {path: (record, True) for path, record in mine.items()}
    for path in (local_base / spool.FOLDER).glob("*.jsonl"):
        if path not in mine:
            # Finished and removed meanwhile.
            with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
                record = spool.read_record(file.read())
                if record is not None:
                    found[path] = (record, _is_locked(file.fileno()))
    files: dict[str, list[tuple[spool.Record, bool]]] = defaultdict(list)
    for record, alive in found.values():
        files[record.path].append((record, alive))
    at_risk, oldest, now = 0, 0.0, time.time()
    for name, sessions in files.items():
        try:
            status = (local_base / name).stat()
        except OSError:
            continue
        # Another session of the same file begins where the one before it ends.
        starts = sorted(record.start for record, _ in sessions)
        for record, alive in sessions:
            end = min([status.st_size, *(start for start in starts if start > record.start)])
            unsent = max(0, end - record.start - record.sent)
            at_risk += unsent
            if unsent and alive:
                oldest = max(oldest, now - status.st_mtime)
    return Spooled(len(found), sum(not alive for _, alive in found.values()), at_risk, max(0.0, round(oldest, 1)))


def check(store: Store, settings: LogSettings, *, write: bool = False) -> Health:
    """Ask the storage, and look at this machine's disk.

    Call it from a process that records nothing itself (`look`).

    Args:
        store: The storage.
        settings: The settings.
        write: Write, read and delete a small object too: a reader's credentials may not suffice for that.
    """
    place = settings.shown_base
    spooled = look(settings.local_base)
    free: int | None = None
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(settings.local_base).free
    began = time.monotonic()
    try:
        _ask(store, write=write)
    except StorageError as error:
        kept = f"; {spooled.bytes_at_risk} bytes are only on this machine" if spooled.bytes_at_risk else ""
        return Health("unhealthy", f"{place}: {error}{kept}", place, None, spooled, free)
    latency = round(time.monotonic() - began, 3)
    troubles = []
    if spooled.orphans:
        troubles.append(f"{spooled.orphans} sessions of processes that are gone wait for: airflow tradewind-logs sweep")
    if spooled.oldest_seconds > max(LATE_SECONDS, 3 * settings.economy_interval_seconds):
        troubles.append(f"a line of {spooled.oldest_seconds:.0f} s ago is not stored yet")
    if free is not None and free < LEAST_FREE_BYTES:
        troubles.append(f"{free} bytes are free in {settings.local_base}")
    if troubles:
        return Health("degraded", "; ".join(troubles), place, latency, spooled, free)
    return Health("healthy", f"{place} answers", place, latency, spooled, free)


def probe() -> dict[str, Any]:
    """What the entry point `tradewind.health` gives to whoever shows health: plain data, ready for JSON.

    Returns:
        `component`, `status`, `message` and `facts`; a wrong setting is a status too and raises nothing.
    """
    from tradewind.logging.remote import airflow_conf, reading_store

    component = "tradewind-logging"
    if not airflow_conf().getboolean("logging", "remote_logging", fallback=False):
        message = "[logging] remote_logging is off: task logs stay on the machines that ran the tasks"
        return {"component": component, "status": "degraded", "message": message, "facts": {}}
    try:
        health = check(*reading_store())
    except TradewindLoggingError as error:
        return {"component": component, "status": "unhealthy", "message": str(error), "facts": {}}
    facts = asdict(health)
    return {"component": component, "status": facts.pop("status"), "message": facts.pop("message"), "facts": facts}


def _ask(store: Store, *, write: bool) -> None:
    if write:
        key = f".tradewind/probe-{secrets.token_hex(6)}"
        store.put(key, b"probe")
        try:
            if store.read(key) != b"probe":
                raise StorageError(f"can't read {key}: other bytes than were written")
        except FileNotFoundError:
            raise StorageError(f"can't read {key}: it was written and is not there") from None
        finally:
            store.delete([key])
        return
    if store.backend.local:
        # The folder itself is made with the first log.
        folder = store.root
        while folder != os.path.dirname(folder) and not os.path.exists(folder):  # noqa: PTH110, PTH120 - not a Path
            folder = os.path.dirname(folder)  # noqa: PTH120
        if not os.access(folder, os.R_OK | os.X_OK):
            raise StorageError(f"can't read {folder}: permission denied")
        return
    bucket = store.root.lstrip("/").partition("/")[0]
    try:
        if bucket:
            store.filesystem.info(bucket)
    except Exception as error:
        # The type and not the text: an SDK's message may hold a signed URL.
        raise StorageError(f"can't use {bucket}: {type(error).__name__}") from error


def _is_locked(descriptor: int) -> bool:
    """Whether another process holds a lock on a file; asking takes none (fcntl(2), F_GETLK)."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return bool(answer[0] != fcntl.F_UNLCK)
