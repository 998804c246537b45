# SPDX-License-Identifier: Apache-2.0
"""Transactions in Airflow's metadata database, and the generation that tells other processes of changes."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from weakref import WeakSet

from airflow import settings
from airflow.utils.session import create_session
from airflow.utils.sqlalchemy import build_upsert_stmt, get_dialect_name
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from tradewind.security.exceptions import StoreUnavailableError
from tradewind.security.store.models import Generation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from sqlalchemy.orm import Session

    class _Refreshable(Protocol):
        def refresh(self) -> object: ...


__all__ = ["bump", "changing", "generation", "transaction", "utc_now"]

DIRECTORIES: WeakSet[_Refreshable] = WeakSet()
"""The directories of this process, which see its own changes at once."""


def utc_now() -> datetime:
    """Give the time."""
    return datetime.now(timezone.utc)


@contextmanager
def transaction() -> Iterator[Session]:
    """Give a session of its own that commits at the end.

    Raises:
        StoreUnavailableError: The database does not answer, or lacks our tables.
    """
    if settings.NonScopedSession is None:
        raise StoreUnavailableError("Airflow has no connection to its metadata database: the process is ending")
    try:
        # Not the thread's scoped session: the caller may be in the middle of a transaction of Airflow's.
        with create_session(scoped=False) as session:
            yield session
    except SQLAlchemyError as error:
        # Not chained: SQLAlchemy's messages hold the statement's parameters.
        raise StoreUnavailableError(
            f"the metadata database can't be used ({type(error).__name__}): "
            "it must be up, and 'airflow db migrate' must have run"
        ) from None


def generation(session: Session) -> int:
    """Give the generation that is committed.

    Args:
        session: A session.
    """
    return session.scalar(select(Generation.value).where(Generation.id == 1)) or 0


def bump(session: Session) -> None:
    """Start a new generation when this transaction commits.

    Called first in a transaction, it is a lock too: until the end no other process changes anything.

    Args:
        session: A session whose transaction makes the change.
    """
    session.execute(
        build_upsert_stmt(
            get_dialect_name(session),
            Generation.__table__,
            ["id"],
            {"id": 1, "value": 1},
            {"value": Generation.__table__.c.value + 1},
        )
    )


@contextmanager
def changing() -> Iterator[Session]:
    """Give a session for a change of who may do what: one at a time, seen by this process when it returns.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with transaction() as session:
        bump(session)
        yield session
    for directory in list(DIRECTORIES):
        try:
            directory.refresh()
        except StoreUnavailableError:
            # The change is committed; a directory that can't be refreshed refuses to answer soon.
            continue
