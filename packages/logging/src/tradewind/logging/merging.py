# SPDX-License-Identifier: Apache-2.0
"""Several streams of lines as one, in the order of time; pure functions over text."""

from __future__ import annotations

import heapq
import json
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

__all__ = ["BEFORE_EVERYTHING", "ENDGROUP", "close_groups", "merge", "merge_numbered", "timestamp_of"]

ENDGROUP = '{"event":"::endgroup::"}'
"""The line that closes a group; without a timestamp, so that it stays behind the line before it."""

BEFORE_EVERYTHING = float("-inf")
"""A time before every line's."""

_JSON_LIMIT = 1 << 20
_FIRST_KEY = re.compile(r'\{\s?"timestamp":\s?"([^"]{10,40})"')
_PLAIN = re.compile(r"\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d[^\s\]]*)")
_ISO = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)[T ](?P<time>\d\d:\d\d(?::\d\d)?)(?:[.,](?P<fraction>\d{1,9}))?\s?"
    r"(?:Z|(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)?)?"
)


def timestamp_of(line: str) -> float | None:
    """A line's time in seconds since the epoch; None where it has none. A time without zone is UTC.

    Example:
        >>> timestamp_of('{"timestamp":"1970-01-01T00:00:01.5Z","event":"x"}')
        1.5
        >>> timestamp_of("[1970-01-01T00:00:02+0000] {x.py:1} INFO - y")
        2.0
        >>> timestamp_of("Traceback (most recent call last):")
    """
    first = line[:1]
    if first == "{":
        match = _FIRST_KEY.match(line)
        if match:
            return _seconds(match[1])
        if len(line) > _JSON_LIMIT or '"timestamp"' not in line:
            return None
        try:
            value = json.loads(line).get("timestamp")
        except (ValueError, RecursionError):
            return None
        return _seconds(value) if isinstance(value, str) else None
    if first == "[" or first.isdigit():
        match = _PLAIN.match(line)
        return _seconds(match[1]) if match else None
    return None


def merge(streams: Sequence[Iterable[str]], starts: Sequence[float] | None = None) -> Generator[str, None, None]:
    """Join streams by time, holding one line of each.

    A stream's own order never changes: its key is the latest time seen in it so far, so a line without a time
    stays behind its predecessor, and a clock that jumps back reorders nothing.

    Args:
        streams: Lines; earlier streams win where times are equal.
        starts: For each stream a time in seconds since the epoch. Its lines count as not older, and it is not
            opened before the others have reached it.

    Example:
        >>> a = ["2026-01-01T00:00:01Z a", "  more", "2026-01-01T00:00:03Z b"]
        >>> list(merge([a, ["2026-01-01T00:00:02Z c"]]))
        ['2026-01-01T00:00:01Z a', '  more', '2026-01-01T00:00:02Z c', '2026-01-01T00:00:03Z b']
    """
    for _, line in merge_numbered(streams, starts):
        yield line


def merge_numbered(
    streams: Sequence[Iterable[str]], starts: Sequence[float] | None = None
) -> Generator[tuple[int, str], None, None]:
    """As `merge`, with the number of each line's stream before it."""
    iterators = [iter(stream) for stream in streams]
    # A stream that was not opened yet is there without a line.
    heap: list[tuple[float, int, str | None]] = [
        (starts[index] if starts else BEFORE_EVERYTHING, index, None) for index in range(len(streams))
    ]
    heapq.heapify(heap)
    while len(heap) > 1:
        key, index, line = heap[0]
        if line is not None:
            yield index, line
        following = next(iterators[index], None)
        if following is None:
            heapq.heappop(heap)
            continue
        time = timestamp_of(following)
        heapq.heapreplace(heap, (key if time is None or time < key else time, index, following))
    for _, index, line in heap:
        # The last one needs no comparing.
        if line is not None:
            yield index, line
        for rest in iterators[index]:
            yield index, rest


def close_groups(lines: Iterable[tuple[int, str]]) -> Generator[str, None, None]:
    """Close each group before another stream's lines and at the end.

    Args:
        lines: (number of the stream, line). No line is dropped or moved.

    Example:
        >>> list(close_groups([(0, "::group::Run"), (0, "killed"), (1, "again")]))
        ['::group::Run', 'killed', '{"event":"::endgroup::"}', 'again']
    """
    current = -1
    depth = 0
    for index, line in lines:
        if index != current:
            for _ in range(depth):
                yield ENDGROUP
            current, depth = index, 0
        yield line
        # What the log page looks for, anywhere in a line.
        if "::group::" in line:
            depth += 1
        elif depth and "::endgroup::" in line:
            depth -= 1
    for _ in range(depth):
        yield ENDGROUP


def _seconds(text: str) -> float | None:
    try:
        # Python 3.10 does not know the Z.
        value = datetime.fromisoformat(f"{text[:-1]}+00:00" if text[-1:] == "Z" else text)
    except ValueError:
        match = _ISO.match(text)
        if match is None:
            return None
        zone = f"{match['sign']}{match['hours']}:{match['minutes'] or '00'}" if match["sign"] else "+00:00"
        fraction = (match["fraction"] or "0").ljust(6, "0")[:6]
        seconds = match["time"] if len(match["time"]) > len("00:00") else f"{match['time']}:00"
        try:
            value = datetime.fromisoformat(f"{match['day']}T{seconds}.{fraction}{zone}")
        except ValueError:
            return None
    if value.tzinfo is None:
        value = value.replace(tzinfo=timezone.utc)
    try:
        return value.timestamp()
    except (OverflowError, ValueError):
        return None
