# SPDX-License-Identifier: Apache-2.0
"""A value that is fetched when it is too old, by one caller for all, and kept when fetching fails."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

from tradewind.security.exceptions import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

# Longer than discovery and keys may take together; a fetch that is older belongs to a loop that is gone.
_PATIENCE_SECONDS = 15.0


class Refreshed(Generic[T]):
    """Works from several event loops and threads at once, so it holds nothing that belongs to a loop.

    Args:
        fetch: Gets a new value, or raises StoreUnavailableError.
        max_age_seconds: How long a value is used without asking again.
        retry_seconds: Least time between the starts of two fetches.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[T]],
        *,
        max_age_seconds: float,
        retry_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._max_age_seconds = max_age_seconds
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._value: T | None = None
        self._fetched_at = self._tried_at = float("-inf")
        self._pending: Future[T] | None = None
        self._failure = "not fetched yet"
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self) -> T:
        """Give the value; the last good one while the source fails.

        Raises:
            StoreUnavailableError: There never was one.
        """
        now = self._clock()
        with self._lock:
            fresh = now - self._fetched_at < self._max_age_seconds
            if self._value is not None and (fresh or self._under_way(now)):
                return self._value
        return await self._refresh()

    async def refetched(self) -> T:
        """Give a new value; the last good one where it's too early to ask again, or the source fails.

        Raises:
            StoreUnavailableError: There never was one.
        """
        return await self._refresh()

    async def answering(self) -> T:
        """Give the value of a source that answers now, or did `retry_seconds` ago.

        Raises:
            StoreUnavailableError: It did not answer when it was asked last.
        """
        with self._lock:
            if self._value is not None and self._clock() - self._fetched_at < self._retry_seconds:
                return self._value
        value = await self._refresh()
        with self._lock:
            if self._fetched_at < self._tried_at:
                raise StoreUnavailableError(self._failure)
        return value

    def _under_way(self, now: float) -> bool:
        return self._pending is not None and not self._pending.done() and now - self._tried_at < _PATIENCE_SECONDS

    async def _refresh(self) -> T:
        now = self._clock()
        with self._lock:
            pending = self._pending
            if pending is None or not self._under_way(now):
                if now - self._tried_at < self._retry_seconds:
                    return self._last_good()
                self._tried_at = now
                pending = self._pending = Future()
                # A waiter that is cancelled must not cancel it for the others.
                pending.set_running_or_notify_cancel()
                task = asyncio.get_running_loop().create_task(self._run(pending))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(pending), _PATIENCE_SECONDS)
        except (StoreUnavailableError, asyncio.TimeoutError):
            with self._lock:
                return self._last_good()

    def _last_good(self) -> T:
        if self._value is None:
            raise StoreUnavailableError(self._failure)
        return self._value

    async def _run(self, pending: Future[T]) -> None:
        try:
            value = await self._fetch()
        except StoreUnavailableError as error:
            self._failure = str(error)
            pending.set_exception(error)
        except BaseException:
            pending.set_exception(StoreUnavailableError("the request was given up"))
            raise
        else:
            with self._lock:
                self._value = value
                self._fetched_at = self._clock()
            pending.set_result(value)
