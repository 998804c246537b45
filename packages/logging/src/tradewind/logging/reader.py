# SPDX-License-Identifier: Apache-2.0
"""A task's log as one stream of lines, in order and in bounded memory.

Three steps, each a generator: ranged reads of a session's objects give lines; a k-way merge by timestamp
joins the sessions without ever changing the order inside one; groups that a killed task left open are
closed, because the log page folds everything behind an open group away.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tradewind.logging import layout
from tradewind.logging.exceptions import StorageError
from tradewind.logging.layout import Session
from tradewind.logging.merging import BEFORE_EVERYTHING, close_groups, merge_numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tradewind.logging.config import LogSettings
    from tradewind.logging.store import Store

__all__ = [
    "FIRST_BLOCK_BYTES",
    "Portion",
    "RemoteReader",
    "Tail",
    "complete_lines",
    "end_of",
    "first_bytes",
    "missing",
    "ordered",
    "session_lines",
    "start_of",
]

FIRST_BLOCK_BYTES = 1 << 18
"""The first read of a session is small, so that its first line comes soon; each further one is twice as large."""

_OPEN_BLOCKS_BYTES = 32 << 20
_PRELOAD_BYTES = 8 << 20
_BACKWARD_BYTES = 1 << 16
_STARTED = re.compile(r"\.(?P<millis>\d{13})-[0-9a-f]+\.log$")


@dataclass(frozen=True)
class Tail:
    """A local file of this machine that holds a session's bytes as well.

    Args:
        path: The file.
        start: The session's first byte in it.
        size: How many of the session's bytes it has, from the first one on.
        prefix: The session's first bytes; they tell which of the stored sessions it is.
        log: The log's path.
        keep: Whatever has to live as long as the file is needed.
    """

    path: Path
    start: int
    size: int
    prefix: bytes = b""
    log: str = ""
    keep: object = None


@dataclass(frozen=True)
class Portion:
    """What one reading takes of a session.

    Args:
        session: Where its bytes are stored.
        start: First byte, in the session.
        end: Byte to stop before.
        tail: The local file that holds what is not stored yet.
        started: No line of it is older, in seconds since the epoch.
        preloaded: The bytes from `start` to `end`, where they were read already.
    """

    session: Session
    start: int
    end: int
    tail: Tail | None = None
    started: float = BEFORE_EVERYTHING
    preloaded: bytes | None = None


def end_of(session: Session) -> int:
    """The session's length in bytes, with its gaps."""
    last = session.segments[-1] if session.segments else None
    return last.offset + last.size if last else 0


def start_of(session: Session) -> float:
    """A time before a session's first line, in seconds since the epoch; minus infinity where its key has none.

    Example:
        >>> start_of(Session("attempt=1.log.1700000000000-3f9a.log", ()))
        1699999999.0
    """
    match = _STARTED.search(session.head)
    # The first line is what starts a session, so it is a moment older than the session's name.
    return int(match["millis"]) / 1000 - 1 if match else BEFORE_EVERYTHING


def missing(session: Session, place: str) -> list[str]:
    """Sentences about the bytes that no object holds.

    Args:
        session: The session.
        place: The storage, for people.

    Example:
        >>> missing(Session("a/attempt=1.log", (), gaps=((4096, 4096),)), "s3://bucket/logs")
        ['bytes 4096-8191 of attempt=1.log are missing in s3://bucket/logs']
    """
    name = session.head.rpartition("/")[2]
    return [f"bytes {at}-{at + size - 1} of {name} are missing in {place}" for at, size in session.gaps]


def session_lines(store: Store, session: Session, *, block_bytes: int, start: int = 0) -> Generator[str, None, None]:
    """The lines of a session; at most one line and one block are in memory.

    Objects may be replaced or deleted meanwhile (the end of a session replaces its head by the whole and
    deletes its parts): then they are listed again, once for each place, and reading goes on where it was.

    Args:
        store: The storage.
        session: As listed.
        block_bytes: Largest read.
        start: First byte, in the session; the beginning of a line.

    Yields:
        Lines without their end (LF or CRLF), invalid UTF-8 replaced. A gap ends a line.

    Raises:
        StorageError: The storage refused.
    """
    portion = Portion(session, start, end_of(session))
    yield from _lines(_pieces(store, portion, block_bytes))


def ordered(
    store: Store | None, portions: Sequence[Portion], block_bytes: int, *extra: Iterable[str]
) -> Generator[str, None, None]:
    """The lines of several sessions as one stream.

    What the storage refuses meanwhile is told in a line at its place; nothing is raised.

    Args:
        store: The storage; None where every portion is local.
        portions: What to read.
        block_bytes: Largest read.
        extra: More streams of lines.
    """
    # Sessions that are open at once share the memory; those that follow each other are not open at once.
    block_bytes = max(1 << 16, min(block_bytes, _OPEN_BLOCKS_BYTES // max(1, len(portions))))
    streams = [*(_told(store, portion, block_bytes) for portion in portions), *extra]
    starts = [*(portion.started for portion in portions), *(BEFORE_EVERYTHING for _ in extra)]
    yield from close_groups(merge_numbered(streams, starts))


def complete_lines(store: Store | None, portions: Sequence[Portion], block_bytes: int) -> list[Portion]:
    """Cut portions behind their last whole line, so that the next reading can begin there.

    What is new since a former reading is small: it is read at once and kept, so it is transferred only once.

    Args:
        store: The storage; None where every portion is local.
        portions: What to read.
        block_bytes: Largest read.

    Returns:
        One for each given one, in their order; the same ones where the storage refused.
    """
    budget = _PRELOAD_BYTES
    cut = []
    for portion in portions:
        size = portion.end - portion.start
        try:
            if size <= min(block_bytes, budget):
                data = _range(store, portion, portion.start, portion.end, block_bytes)
                if len(data) == size:
                    budget -= size
                    data = data[: data.rfind(b"\n") + 1]
                    cut.append(replace(portion, end=portion.start + len(data), preloaded=data))
                    continue
            cut.append(replace(portion, end=_last_line_end(store, portion)))
        except StorageError:
            cut.append(portion)
    return cut


def first_bytes(store: Store, session: Session, size: int) -> bytes:
    """The first bytes of a session, which tell it from others.

    Raises:
        StorageError: The storage refused.
    """
    return _range(store, Portion(session, 0, min(size, end_of(session))), 0, min(size, end_of(session)), size)


class RemoteReader:
    """Reads what the storage holds of a log.

    Args:
        store: The storage.
        settings: How logs are recorded.
    """

    def __init__(self, store: Store, settings: LogSettings) -> None:
        self.store = store
        self.settings = settings

    def sessions(self, log: str) -> list[Session]:
        """The sessions of a log, as listed now.

        Raises:
            StorageError: The storage refused.
        """
        return layout.sessions(log, self.store.list(log))

    def stream(self, log: str) -> tuple[list[str], list[Generator[str, None, None]]]:
        """A log line by line.

        Args:
            log: The log's path.

        Returns:
            Where the lines come from and what is missing, for people; and at most one stream, because Airflow's
            own interleaving brings several out of order.

        Raises:
            StorageError: The storage refused to list.
        """
        sessions = self.sessions(log)
        sources = self.sources(log, sessions)
        portions = [_whole(session) for session in sessions if session.segments]
        return sources, [ordered(self.store, portions, self.settings.read_block_bytes)] if portions else []

    def sources(self, log: str, sessions: Sequence[Session]) -> list[str]:
        """Where lines come from and what is missing, for people."""
        base = self.settings.remote_base
        filled = [session for session in sessions if session.segments]
        if not filled:
            return [f"{base}/{log}: nothing is stored there"]
        number = "1 session" if len(filled) == 1 else f"{len(filled)} sessions"
        size = sum(session.size for session in filled)
        gaps = [sentence for session in filled for sentence in missing(session, base)]
        return [f"{base}/{log}: {number}, {size} bytes", *gaps]

    def read(self, log: str) -> tuple[list[str], list[str]]:
        """A log as text, in Airflow's former form; all of it is in memory.

        Args:
            log: The log's path.

        Returns:
            Where the lines come from, and at most one text.

        Raises:
            StorageError: The storage refused to list.
        """
        sources, streams = self.stream(log)
        return sources, ["\n".join(stream) for stream in streams]

    def lines(self, log: str, cursor: Mapping[str, int] | None = None) -> tuple[Iterator[str], dict[str, int]]:
        """What is new in a log since a former reading.

        Args:
            log: The log's path.
            cursor: What the former reading returned.

        Returns:
            The new whole lines, and the cursor for the next reading: the end of a session's head behind the
            log's path -> bytes read. Sessions without news are not asked for.

        Raises:
            StorageError: The storage refused to list.
        """
        known = dict(cursor or {})
        portions = []
        for session in self.sessions(log):
            portion = replace(_whole(session), start=known.get(session.head.removeprefix(log), 0))
            if portion.start < portion.end:
                portions.append(portion)
        portions = complete_lines(self.store, portions, self.settings.read_block_bytes)
        known.update({portion.session.head.removeprefix(log): portion.end for portion in portions})
        return ordered(self.store, portions, self.settings.read_block_bytes), known


def _whole(session: Session) -> Portion:
    return Portion(session, 0, end_of(session), started=start_of(session))


def _told(store: Store | None, portion: Portion, block_bytes: int) -> Iterator[str]:
    name = portion.session.head.rpartition("/")[2] or "a local log"

    def gap(start: int, end: int) -> str:
        event = f"Bytes {start}-{end - 1} of {name} are missing here."
        return json.dumps({"event": event, "level": "warning", "logger": "tradewind.logging"})

    try:
        yield from _lines(_pieces(store, portion, block_bytes), gap)
    except StorageError as error:
        event = f"The rest of {name} could not be read: {error}"
        yield json.dumps({"event": event, "level": "error", "logger": "tradewind.logging"})


def _lines(pieces: Iterable[bytes | tuple[int, int]], gap: Callable[[int, int], str] | None = None) -> Iterator[str]:
    pending = bytearray()
    for piece in pieces:
        if isinstance(piece, tuple):
            if pending:
                yield _take(pending)
            if gap is not None:
                yield gap(*piece)
            continue
        begin = 0
        # One line at a time: a list of a block's lines may be many times larger than the block.
        end = piece.find(b"\n")
        if end >= 0 and pending:
            pending += piece[:end]
            yield _take(pending)
            begin = end + 1
            end = piece.find(b"\n", begin)
        while end >= 0:
            yield piece[begin:end].removesuffix(b"\r").decode("utf-8", "replace")
            begin = end + 1
            end = piece.find(b"\n", begin)
        pending += piece[begin:]
    if pending:
        yield _take(pending)


def _take(pending: bytearray) -> str:
    if pending.endswith(b"\r"):
        del pending[-1]
    text = pending.decode("utf-8", "replace")
    pending.clear()
    return text


def _pieces(store: Store | None, portion: Portion, block_bytes: int) -> Iterator[bytes | tuple[int, int]]:
    """Blocks of bytes, and (first byte, byte behind) of what nobody holds."""
    if portion.preloaded is not None:
        yield portion.preloaded
        return
    session = portion.session
    offset = portion.start
    size = min(FIRST_BLOCK_BYTES, block_bytes)
    listed_again_at = -1
    while offset < portion.end:
        data = _piece(store, session, portion.tail, offset, min(size, portion.end - offset))
        if data:
            yield data
            offset += len(data)
            size = min(size * 2, block_bytes)
        elif listed_again_at != offset:
            listed_again_at = offset
            session = _listed_again(store, session, portion.tail)
        else:
            following = min((s.offset for s in session.segments if s.offset > offset), default=portion.end)
            following = min(following, portion.end)
            yield (offset, following)
            offset = following


def _piece(store: Store | None, session: Session, tail: Tail | None, offset: int, size: int) -> bytes:
    """Some of the wanted bytes; none where nobody holds them any more."""
    for segment in session.segments:
        within = offset - segment.offset
        if store is not None and 0 <= within < segment.size:
            try:
                return store.read(segment.key, segment.start + within, min(size, segment.size - within))
            except FileNotFoundError:
                return b""
    if tail is not None and offset < tail.size:
        try:
            with tail.path.open("rb") as file:
                file.seek(tail.start + offset)
                return file.read(min(size, tail.size - offset))
        except OSError:
            # Sent and deleted meanwhile.
            return b""
    return b""


def _listed_again(store: Store | None, session: Session, tail: Tail | None) -> Session:
    if store is None:
        return session
    if session.head:
        found = layout.sessions(session.head, store.list(session.head))
        return next((other for other in found if other.head == session.head), Session(session.head, ()))
    if tail is not None and tail.prefix:
        for other in layout.sessions(tail.log, store.list(tail.log)):
            if end_of(other) >= len(tail.prefix) and first_bytes(store, other, len(tail.prefix)) == tail.prefix:
                return other
    return session


def _range(store: Store | None, portion: Portion, start: int, end: int, block_bytes: int) -> bytes:
    pieces = _pieces(store, replace(portion, start=start, end=end, preloaded=None), block_bytes)
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))


def _last_line_end(store: Store | None, portion: Portion) -> int:
    end = portion.end
    while end > portion.start:
        begin = max(portion.start, end - _BACKWARD_BYTES)
        data = _range(store, portion, begin, end, _BACKWARD_BYTES)
        if len(data) < end - begin:
            # A gap: what is before it does not grow any more.
            return portion.end
        newline = data.rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return portion.start
