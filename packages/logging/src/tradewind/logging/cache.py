# SPDX-License-Identifier: Apache-2.0
"""What the api-server has read of running sessions, so that the next refresh asks the storage for news only.

Airflow's log page asks for the whole log again every few seconds. What a session has written never changes, so
the bytes are kept on this machine's disk, in files without a name that end with the process. A log that
was deleted and written again under the same name is noticed by its last known bytes.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tradewind.logging.layout import split_key
from tradewind.logging.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CachedStore", "SessionCache"]

_PROBE_BYTES = 256


class _Kept:
    """The first bytes of one object, in a file without a name."""

    def __init__(self) -> None:
        self.file, name = tempfile.mkstemp(prefix="tradewind-log-")
        self.close = weakref.finalize(self, os.close, self.file)
        self.size = 0
        os.unlink(name)  # noqa: PTH108 - a descriptor's file

    def read(self, start: int, end: int) -> bytes:
        return os.pread(self.file, end - start, start)


@dataclass
class _Session:
    objects: dict[str, _Kept] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(kept.size for kept in self.objects.values())


class SessionCache:
    """The first bytes of objects, in anonymous temporary files; safe between threads.

    Args:
        most_bytes: Of all sessions together; those that were not used for the longest time make room.
        most_objects: As many files are open at most.
    """

    def __init__(self, most_bytes: int, most_objects: int = 256) -> None:
        self.most_bytes = most_bytes
        self.most_objects = most_objects
        self._sessions: OrderedDict[tuple[str, str], _Session] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        with self._lock:
            return sum(session.size for session in self._sessions.values())

    def get(self, root: str, key: str, start: int, end: int) -> bytes:
        """What is kept of the wanted bytes, from `start` on; empty when the first of them is not.

        Args:
            root: The storage's base.
            key: The object.
            start: First byte.
            end: Byte to stop before.
        """
        with self._lock:
            session = self._sessions.get((root, split_key(key)[0]))
            kept = session.objects.get(key) if session else None
            return kept.read(start, min(end, kept.size)) if kept and start < kept.size else b""

    def extend(self, root: str, key: str, start: int, data: bytes) -> None:
        """Keep bytes that continue what is kept of an object; others are ignored, and so is a full disk.

        Args:
            root: The storage's base.
            key: The object.
            start: Where the bytes lie in it.
            data: The bytes.
        """
        name = (root, split_key(key)[0])
        with self._lock:
            session = self._sessions.setdefault(name, _Session())
            self._sessions.move_to_end(name)
            size = session.objects[key].size if key in session.objects else 0
            if start != size:
                return
            data = data[: self._make_room(name, len(data), is_new=key not in session.objects)]
            if not data:
                return
            try:
                if key not in session.objects:
                    session.objects[key] = _Kept()
                written = os.pwrite(session.objects[key].file, data, start)
            except OSError:
                return
            session.objects[key].size += written

    def check(self, root: str, head: str, read: Callable[[str, int, int], bytes]) -> None:
        """Forget a session whose last known bytes the storage does not have any more.

        Args:
            root: The storage's base.
            head: The session's head.
            read: Reads an object of the storage: key, start and number of bytes.
        """
        with self._lock:
            session = self._sessions.get((root, head))
            kept = session.objects.get(head) if session else None
            if kept is None or not kept.size:
                return
            start = max(0, kept.size - _PROBE_BYTES)
            known = kept.read(start, kept.size)
        try:
            same = read(head, start, len(known)) == known
        except FileNotFoundError:
            same = False
        if not same:
            self.forget(root, head)

    def forget(self, root: str, head: str) -> None:
        """Keep nothing of a session any more.

        Args:
            root: The storage's base.
            head: The session's head.
        """
        with self._lock:
            self._drop((root, head))

    def _make_room(self, name: tuple[str, str], size: int, *, is_new: bool) -> int:
        """Drop others until so many bytes have room; returns how many have."""
        while True:
            room = self.most_bytes - sum(session.size for session in self._sessions.values())
            objects = sum(len(session.objects) for session in self._sessions.values()) + is_new
            oldest = next(iter(self._sessions))
            if (room >= size and objects <= self.most_objects) or oldest == name:
                return max(0, room) if objects <= self.most_objects else 0
            self._drop(oldest)

    def _drop(self, name: tuple[str, str]) -> None:
        session = self._sessions.pop(name, None)
        for kept in session.objects.values() if session else ():
            kept.close()


class CachedStore(Store):
    """A storage that asks for what is not kept yet; made anew for each reading.

    Args:
        store: The storage.
        cache: What earlier readings kept.
    """

    def __init__(self, store: Store, cache: SessionCache) -> None:
        super().__init__(store.filesystem, store.root, store.backend)
        self._store = store
        self._cache = cache
        self._checked: set[str] = set()

    def list(self, prefix: str) -> dict[str, int]:
        """As `Store.list`."""
        return self._store.list(prefix)

    def read(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        """As `Store.read`."""
        if size is None:
            return self._store.read(key, start)
        head = split_key(key)[0]
        kept = self._cache.get(self.root, key, start, start + size)
        if kept and head not in self._checked:
            self._checked.add(head)
            self._cache.check(self.root, head, self._store.read)
            kept = self._cache.get(self.root, key, start, start + size)
        if len(kept) == size:
            return kept
        rest = self._store.read(key, start + len(kept), size - len(kept))
        if not kept and key == head and start == 0:
            self._cache.forget(self.root, head)
            self._checked.add(head)
        # What was not checked is not continued: it may be of a log that is no more.
        if head in self._checked:
            self._cache.extend(self.root, key, start + len(kept), rest)
        return kept + rest
