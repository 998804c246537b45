# SPDX-License-Identifier: Apache-2.0
"""Work that a daemon thread does every so often, also in the children of a process that forks."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Periodic"]

log = logging.getLogger(__name__)

_LAST_CALL_SECONDS = 10.0
_ALL: WeakSet[Periodic] = WeakSet()


class Periodic:
    """Calls a function every so often, from the first `start` until `close`.

    Args:
        name: Name of the thread.
        seconds: Pause between two calls.
        action: What to call. What it raises is logged, and does not end the thread.
        in_child: Called in a forked child before anything else runs there: gives the owner new locks.
        last_call: Call the function once more at the end.
    """

    def __init__(
        self,
        name: str,
        seconds: float,
        action: Callable[[], object],
        *,
        in_child: Callable[[], None] | None = None,
        last_call: bool = False,
    ) -> None:
        self.name = name
        self.seconds = seconds
        self._action = action
        self._in_child = in_child
        self._closed = False
        self._last_call = last_call
        self._reset()
        _ALL.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread unless it runs; costs nearly nothing if it does."""
        if self._closed or (self._thread is not None and self._thread.is_alive()):
            return
        with self._lock:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # The interpreter is ending: owners do their last work in `close`.
                return
            self._thread = thread
        # Registered this late it runs before Airflow's own, which takes the database away.
        atexit.unregister(self.close)
        atexit.register(self.close)

    def close(self) -> None:
        """End the thread; at the end of the process this happens by itself."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        self._stop.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(_LAST_CALL_SECONDS)
        elif self._last_call:
            self._call()

    def _run(self) -> None:
        stop = self._stop
        while not stop.wait(self.seconds):
            self._call()
        if self._last_call:
            self._call()

    def _call(self) -> None:
        try:
            self._action()
        except Exception:  # one failure must not end the work of the process
            log.exception("%s failed; the next try is in %s s", self.name, self.seconds)

    def _after_fork(self) -> None:
        self._reset()
        if self._in_child is not None:
            self._in_child()


def _after_fork() -> None:
    for periodic in list(_ALL):
        periodic._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
