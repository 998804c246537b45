# SPDX-License-Identifier: Apache-2.0
"""When tokens and sessions were last used: written now and then by a thread, never by a request."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import or_, update

from tradewind.security.exceptions import StoreUnavailableError
from tradewind.security.store import models
from tradewind.security.store.periodic import Periodic
from tradewind.security.store.transaction import transaction

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["flush", "session_seen", "token_used"]

_PRECISION = timedelta(minutes=1)
_FLUSH_SECONDS = 5.0
_REMEMBERED = 10_000
_COLUMNS: dict[str, tuple[Any, Any]] = {
    "token": (models.ApiToken, models.ApiToken.last_used_at),
    "session": (models.Session, models.Session.last_seen_at),
}


class _Usage:
    def __init__(self) -> None:
        self._in_child()
        self._writer = Periodic(
            "tradewind-security-usage", _FLUSH_SECONDS, self._try, in_child=self._in_child, last_call=True
        )

    def _in_child(self) -> None:
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._pending: dict[tuple[str, str], datetime] = {}
        self._noted: dict[tuple[str, str], datetime] = {}

    def note(self, kind: str, row_id: str, now: datetime) -> None:
        key = (kind, row_id)
        noted = self._noted.get(key)
        if noted is not None and noted <= now < noted + _PRECISION:
            return
        with self._lock:
            if len(self._noted) >= _REMEMBERED:
                self._noted.clear()
            self._noted[key] = now
            if len(self._pending) < _REMEMBERED:
                self._pending[key] = now
        self._writer.start()

    def _try(self) -> None:
        # What could not be written is kept, and the directory's thread has logged that nobody answers.
        with suppress(StoreUnavailableError):
            self.flush()

    def flush(self) -> None:
        with self._flushing:
            with self._lock:
                pending, self._pending = self._pending, {}
            if not pending:
                return
            try:
                with transaction() as session:
                    for (kind, row_id), at in sorted(pending.items()):
                        table, column = _COLUMNS[kind]
                        session.execute(
                            update(table)
                            .where(table.id == row_id, or_(column.is_(None), column <= at - _PRECISION))
                            .values({column: at})
                            .execution_options(synchronize_session=False)
                        )
            except BaseException:
                with self._lock:
                    self._pending = {**pending, **self._pending}
                raise


_usage: _Usage | None = None
_usage_lock = threading.Lock()


def _shared() -> _Usage:
    global _usage  # noqa: PLW0603  # one thread a process, made when first needed
    if _usage is None:
        with _usage_lock:
            if _usage is None:
                _usage = _Usage()
    return _usage


def token_used(token_id: str, now: datetime) -> None:
    """Note that an API token was used; at most one write a minute and token follows.

    Args:
        token_id: The part of the token that is no secret.
        now: The time.
    """
    _shared().note("token", token_id, now)


def session_seen(session_id: str, now: datetime) -> None:
    """Note that a session was used; at most one write a minute and session follows.

    Args:
        session_id: Its id.
        now: The time.
    """
    _shared().note("session", session_id, now)


def flush() -> None:
    """Write what was noted now.

    Raises:
        StoreUnavailableError: The database does not answer; what was noted is kept.
    """
    _shared().flush()
