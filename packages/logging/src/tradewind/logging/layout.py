# SPDX-License-Identifier: Apache-2.0
"""Which object holds which bytes of a task's log; pure functions over keys and sizes.

Keys are relative to `[logging] remote_base_log_folder`. A *log* is Airflow's relative path of one attempt
(`dag_id=.../attempt=1.log`). One supervisor run writes one *session* of it, each in objects of its own:

    attempt=1.log                                the first session's head: bytes from 0 on
    attempt=1.log.part.000000004194304           its bytes from 4194304 on, while it runs
    attempt=1.log.1700000000000-3f9a.log         a later session's head (deferral, reschedule, second worker)
    attempt=1.log.1700000000000-3f9a.log.part.000000004194304
    attempt=1.log.trigger.7.log                  a triggerer's session

When a session ends its head is replaced by the whole of its bytes and its parts are deleted. Every object
starts with the log's path, so unmodified readers of Airflow, which list by that prefix, see all of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Segment", "Session", "belongs", "part_key", "session_key", "sessions", "split_key"]

_PART = re.compile(r"(?P<head>.+)\.part\.(?P<offset>\d{15})")
_SESSION = re.compile(r"\.(?P<millis>\d{13})-(?P<token>[0-9a-f]+)\.log$")


@dataclass(frozen=True)
class Segment:
    """Bytes of a session inside one object.

    Args:
        key: The object.
        start: First byte to take, inside the object.
        size: Number of bytes.
        offset: Where they lie in the session.
    """

    key: str
    start: int
    size: int
    offset: int


@dataclass(frozen=True)
class Session:
    """One supervisor run's or one trigger's part of a log.

    Args:
        head: The key of its first object.
        segments: Its bytes in order, without overlap.
        gaps: (offset, size) of bytes that no object holds.
        redundant: Keys of objects whose bytes other objects hold as well.
    """

    head: str
    segments: tuple[Segment, ...]
    gaps: tuple[tuple[int, int], ...] = ()
    redundant: tuple[str, ...] = field(default=())

    @property
    def size(self) -> int:
        """Bytes that can be read."""
        return sum(segment.size for segment in self.segments)


def session_key(log: str, started_ms: int, token: str) -> str:
    """The head of a session that is not the log's first one.

    Args:
        log: The log's path.
        started_ms: Start, in milliseconds since the epoch.
        token: Lower-case hexadecimal digits that no other session of this log has.

    Example:
        >>> session_key("attempt=1.log", 1700000000000, "3f9a")
        'attempt=1.log.1700000000000-3f9a.log'
    """
    return f"{log}.{started_ms:013d}-{token}.log"


def part_key(head: str, offset: int) -> str:
    """The object that holds a session's bytes from an offset on; the head itself for 0.

    Args:
        head: The session's head.
        offset: In bytes.

    Example:
        >>> part_key("attempt=1.log", 4194304)
        'attempt=1.log.part.000000004194304'
    """
    return f"{head}.part.{offset:015d}" if offset else head


def split_key(key: str) -> tuple[str, int]:
    """The head and the offset that a key stands for.

    Example:
        >>> split_key("attempt=1.log.part.000000004194304")
        ('attempt=1.log', 4194304)
        >>> split_key("attempt=1.log")
        ('attempt=1.log', 0)
    """
    match = _PART.fullmatch(key)
    return (match["head"], int(match["offset"])) if match else (key, 0)


def belongs(log: str, key: str) -> bool:
    """Tell whether an object is part of a log; `attempt=10` does not belong to `attempt=1`."""
    return key == log or key.startswith(f"{log}.")


def sessions(log: str, sizes: Mapping[str, int]) -> list[Session]:
    """Put a log's objects in order.

    Args:
        log: The log's path.
        sizes: Key to size in bytes, as listed; other logs' objects are left out.

    Returns:
        The sessions, the log's first one first, then by start.
    """
    heads: dict[str, dict[int, tuple[str, int]]] = {}
    for key, size in sizes.items():
        if belongs(log, key):
            head, offset = split_key(key)
            heads.setdefault(head, {})[offset] = (key, size)
    ordered = sorted(heads, key=lambda head: _order(log, head))
    return [_session(head, sorted((o, k, s) for o, (k, s) in heads[head].items())) for head in ordered]


def _order(log: str, head: str) -> tuple[int, int, str]:
    match = _SESSION.search(head)
    return (0 if head == log else 1, int(match["millis"]) if match else 0, head)


def _session(head: str, objects: Iterable[tuple[int, str, int]]) -> Session:
    segments: list[Segment] = []
    gaps: list[tuple[int, int]] = []
    redundant: list[str] = []
    covered = 0
    for offset, key, size in objects:
        end = offset + size
        if end <= covered:
            # After the head was replaced by the whole and before the parts were deleted; an empty head too.
            if offset:
                redundant.append(key)
            continue
        if offset > covered:
            gaps.append((covered, offset - covered))
            covered = offset
        segments.append(Segment(key, covered - offset, end - covered, covered))
        covered = end
    return Session(head, tuple(segments), tuple(gaps), tuple(redundant))
