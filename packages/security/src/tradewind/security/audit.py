# SPDX-License-Identifier: Apache-2.0
"""The audit log: who was let in, what was refused, and which rights were changed.

An event is one line of JSON with the field names of Astro's audit log. A request only puts it into memory;
a thread for each sink writes what has come together every few seconds and when the process ends.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import secrets
import socket
import sys
import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from tradewind.security.exceptions import SettingsError
from tradewind.security.store.periodic import Periodic

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AuditEvent", "AuditLog", "purge", "tail"]

log = logging.getLogger(__name__)

_BATCH_EVENTS = 5_000
_LONGEST_TEXT = 1_000
_LONGEST_LINE = 48_000  # MySQL's TEXT has 64 KiB
_SECRET_NAMES = re.compile(
    r"passw|secret|credential|authorization|cookie|api_?key|(?:^|_)(?:token|jwt)$", re.IGNORECASE
)
_SECRETS = re.compile(r"(twr_[0-9a-f]{16}_)[\w-]+|eyJ[\w-]+\.[\w-]+\.[\w-]*|(?<=://)[^/\s@]+(?=@)")


@dataclass(frozen=True)
class AuditEvent:
    """An event, ready to be written.

    Args:
        at: When it happened, in UTC.
        event: What happened, such as `login` or `access.denied`.
        outcome: How it ended, such as `success` or `denied`.
        subject: Id of who did it, or None.
        line: All of it, as one line of JSON.
    """

    at: datetime
    event: str
    outcome: str
    subject: str | None
    line: str


class _Sink(Protocol):
    def write(self, events: Sequence[AuditEvent]) -> None: ...


class _Stdout:
    def write(self, events: Sequence[AuditEvent]) -> None:
        sys.stdout.write("".join(f"{event.line}\n" for event in events))
        sys.stdout.flush()


class _Table:
    def write(self, events: Sequence[AuditEvent]) -> None:
        from sqlalchemy import insert

        from tradewind.security.store import models
        from tradewind.security.store.transaction import transaction

        with transaction() as session:
            session.execute(
                insert(models.AuditEvent),
                [
                    {"at": e.at, "event": e.event, "outcome": e.outcome, "subject": e.subject, "line": e.line}
                    for e in events
                ],
            )


class _Folder:
    """One object a flush; the same object again if the first try failed half-way."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._sequence = 0
        self._identify()

    def _identify(self) -> None:
        # A container's host name and process id come again after a restart; an object must not be replaced.
        self._writer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._process = os.getpid()

    def write(self, events: Sequence[AuditEvent]) -> None:
        if self._process != os.getpid():
            self._identify()
        days: dict[str, list[str]] = {}
        for event in events:
            days.setdefault(f"{event.at:year=%Y/month=%m/day=%d}", []).append(event.line)
        for offset, (day, lines) in enumerate(days.items()):
            name = f"{day}/{self._writer}-{self._sequence + offset:06d}.ndjson"
            self._put(name, "".join(f"{line}\n" for line in lines).encode())
        self._sequence += len(days)

    def _put(self, name: str, data: bytes) -> None:
        if self.url.startswith("file:"):
            path = Path(unquote(urlsplit(self.url).path)) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".partial")
            unfinished.write_bytes(data)
            unfinished.replace(path)
            return
        from fsspec.core import url_to_fs

        file_system, folder = url_to_fs(self.url)
        file_system.pipe_file(f"{folder}/{name}", data)


class _Buffered:
    def __init__(self, url: str, flush_seconds: float, kept_events: int) -> None:
        self._kept_events = kept_events
        self.kind = url.partition(":")[0]
        self._sink = _sink(url)
        self._reset()
        self._flusher = Periodic(
            f"tradewind-security-audit-{self.kind}", flush_seconds, self.flush, in_child=self._reset, last_call=True
        )

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        # What a forked child inherits is written by its parent.
        self._events: deque[AuditEvent] = deque()
        self._dropped = 0
        self._failing = False

    def add(self, event: AuditEvent) -> None:
        with self._lock:
            # The oldest stay: who floods the log does not erase what came before.
            if len(self._events) < self._kept_events:
                self._events.append(event)
            else:
                self._dropped += 1
        self._flusher.start()

    def flush(self) -> bool:
        with self._flushing:
            while self._events:
                with self._lock:
                    batch = list(islice(self._events, _BATCH_EVENTS))
                try:
                    self._sink.write(batch)
                except Exception as error:  # noqa: BLE001  # whatever a sink's library raises, events are kept
                    if not self._failing:
                        log.error(  # noqa: TRY400  # a library's message may hold the URL with its password
                            "Audit events can't be written to %s: (%s). Up to %s are kept and tried again.",
                            self.kind,
                            type(error).__name__,
                            self._kept_events,
                        )
                    self._failing = True
                    return False
                with self._lock:
                    for _ in batch:
                        self._events.popleft()
                    dropped, self._dropped = self._dropped, 0
                if self._failing:
                    self._failing = False
                    log.info("Audit events can be written to %s: again", self.kind)
                if dropped:
                    log.error("%s audit events for %s: were lost: more came than could be kept", dropped, self.kind)
            return True

    def close(self) -> None:
        self._flusher.close()
        if self._events:
            log.error("%s audit events for %s: were not written before the end", len(self._events), self.kind)


def _sink(url: str) -> _Sink:
    scheme, colon, rest = url.partition(":")
    if url == "stdout:":
        return _Stdout()
    if url == "table:":
        return _Table()
    if colon and rest.startswith("//") and len(rest) > len("//"):
        return _Folder(url)
    raise SettingsError(
        f"audit sink of scheme {scheme!r}: expected stdout:, table: or the URL of a folder such as s3://bucket/audit"
    )


class AuditLog:
    """Takes events and has them written; it never makes a request wait and never raises into it.

    Args:
        sinks: Where to: `stdout:`, `table:` (table `tw_audit`), or URLs of folders (`file:///...`, `s3://...`).
        flush_seconds: How often to write.
        kept_events: How many a sink that fails keeps until it can be written to again.

    Raises:
        SettingsError: A sink is none of these.
    """

    def __init__(self, sinks: Sequence[str], flush_seconds: float = 5.0, kept_events: int = 100_000) -> None:
        self._sinks = [_Buffered(url, flush_seconds, kept_events) for url in sinks]
        atexit.register(self.close)

    def record(  # noqa: PLR0913  # each is a field of the event
        self,
        event: str,
        *,
        subject: str | None,
        subject_type: str | None,
        outcome: str,
        reason: str | None = None,
        method: str | None = None,
        path: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        source_ip: str | None = None,
        user_agent: str | None = None,
        organization: str | None = None,
        deployment: str | None = None,
        **details: object,
    ) -> None:
        """Take an event.

        Args:
            event: What happened, such as `login` or `access.denied`.
            subject: Id of who did it, or None where nobody knows.
            subject_type: `user`, `service`, `workload` or `anonymous`.
            outcome: How it ended: `success`, `failure` or `denied`.
            reason: Why, in one word with underscores.
            method: HTTP method.
            path: Path of the request; a query is cut off, for it may hold a secret.
            status: HTTP status of the answer.
            request_id: Id of the request.
            source_ip: Where the request came from.
            user_agent: What it came from.
            organization: The organization.
            deployment: The deployment.
            details: More, such as the role that was given to whom; values whose name or form is that of a
                secret are replaced.
        """
        try:
            now = datetime.now(timezone.utc)
            fields = {
                "timestamp": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
                "event": event,
                "outcome": outcome,
                "reason": reason,
                "subjectId": subject,
                "subjectType": subject_type,
                "organizationId": organization,
                "deploymentId": deployment,
                "method": method,
                "path": None if path is None else re.split("[?#]", path, maxsplit=1)[0],
                "status": status,
                "requestId": request_id,
                "sourceIp": source_ip,
                "userAgent": user_agent,
                "details": _plain(details) if details else None,
            }
            given = {name: _plain(value) for name, value in fields.items() if value is not None}
            line = json.dumps(given)
            if len(line) > _LONGEST_LINE:
                line = json.dumps({**given, "details": {"omitted": f"{len(line)} bytes"}})
            # A character that a database refuses would hold up all events behind this one.
            known = None if subject is None else "".join(c for c in str(given["subjectId"]) if c.isprintable())[:250]
            taken = AuditEvent(now, event[:100], outcome[:20], known, line)
            for sink in self._sinks:
                sink.add(taken)
        except Exception:  # a request must not fail because of its log
            log.exception("An audit event %s could not be taken", event)

    def flush(self) -> bool:
        """Write what was taken now.

        Returns:
            Whether all of it is written.
        """
        return all([sink.flush() for sink in self._sinks])  # noqa: C419  # each sink, also after one that fails

    def close(self) -> None:
        """Write what was taken and end the threads."""
        for sink in self._sinks:
            sink.close()
        atexit.unregister(self.close)


def _plain(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, dict):
        return {
            str(name)[:100]: "***" if _SECRET_NAMES.search(str(name)) else _plain(inner)
            for name, inner in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in islice(value, 100)]
    return _SECRETS.sub(lambda found: f"{found[1] or ''}***", str(value)[: 4 * _LONGEST_TEXT])[:_LONGEST_TEXT]


def tail(
    limit: int = 100, *, event: str | None = None, subject: str | None = None, outcome: str | None = None
) -> list[dict[str, object]]:
    """Give the last events of the sink `table:`, newest first.

    Args:
        limit: How many at most.
        event: Only of this kind.
        subject: Only those of this user or service.
        outcome: Only those that ended so.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    from sqlalchemy import select

    from tradewind.security.store import models
    from tradewind.security.store.transaction import transaction

    query = (
        select(models.AuditEvent.line).order_by(models.AuditEvent.at.desc(), models.AuditEvent.id.desc()).limit(limit)
    )
    for column, wanted in (
        (models.AuditEvent.event, event),
        (models.AuditEvent.subject, subject),
        (models.AuditEvent.outcome, outcome),
    ):
        if wanted is not None:
            if not wanted.isprintable():
                return []
            query = query.where(column == wanted)
    with transaction() as session:
        return [json.loads(line) for line in session.scalars(query)]


def purge(days: int) -> int:
    """Delete old events of the sink `table:`.

    Args:
        days: Those older than so many days.

    Returns:
        How many were deleted.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    from typing import Any

    from sqlalchemy import delete

    from tradewind.security.store import models
    from tradewind.security.store.transaction import transaction

    before = datetime.now(timezone.utc) - timedelta(days=days)
    with transaction() as session:
        found: Any = session.execute(delete(models.AuditEvent).where(models.AuditEvent.at < before))
        return int(found.rowcount)
