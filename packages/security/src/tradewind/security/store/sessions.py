# SPDX-License-Identifier: Apache-2.0
"""Sessions: what a login starts, and what ends it before its time."""

from __future__ import annotations

import json
import re
import secrets
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import select, update

from tradewind.security.exceptions import InvalidValueError, NotFoundError
from tradewind.security.store import models
from tradewind.security.store.checks import clipped, identifier, is_identifier
from tradewind.security.store.records import SessionRecord, session_record
from tradewind.security.store.transaction import changing, transaction, utc_now

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy.sql import ColumnElement

__all__ = ["SessionRecord", "get", "list_sessions", "purge", "revoke", "revoke_idp", "revoke_user", "start"]

_LARGEST_GROUPS = 60_000  # MySQL's TEXT


def start(  # noqa: PLR0913  # each is a column
    user_id: str,
    *,
    ends_at: datetime,
    kind: str = "user",
    name: str | None = None,
    ip: str | None = None,
    user_agent: str | None = None,
    issuer: str | None = None,
    idp_session: str | None = None,
    idp_subject: str | None = None,
    groups: Collection[str] = (),
) -> str:
    """Start a session.

    Args:
        user_id: Whose it is.
        ends_at: From when on it is not accepted.
        kind: `user` or `service`.
        name: For display.
        ip: Where the login came from.
        user_agent: What it came from.
        issuer: Name of the identity provider, or None for a password login.
        idp_session: The provider's own id of the session (`sid`).
        idp_subject: The provider's own id of the user (`sub`).
        groups: Groups of the provider, each `issuer:group`.

    Returns:
        The session's id.

    Raises:
        InvalidValueError: An argument can't be used.
        StoreUnavailableError: The database does not answer.
    """
    identifier("user id", user_id)
    for what, value in (("idp_session", idp_session), ("idp_subject", idp_subject), ("issuer", issuer)):
        if value is not None:
            # Cut short, it would not be found when the provider ends the session.
            identifier(what, value)
    if kind not in ("user", "service"):
        raise InvalidValueError(f"kind {kind!r}: expected user or service")
    groups_text = json.dumps(sorted(groups))
    if len(groups_text) > _LARGEST_GROUPS:
        raise InvalidValueError(f"groups of {len(groups_text)} bytes; expected at most {_LARGEST_GROUPS}")
    session_id = secrets.token_hex(16)
    now = utc_now()
    # No new generation: nothing that was decided before depends on it.
    with transaction() as session:
        session.add(
            models.Session(
                id=session_id,
                user_id=user_id,
                kind=kind,
                name=clipped(name),
                issuer=issuer,
                idp_session=idp_session,
                idp_subject=idp_subject,
                groups=groups_text,
                created_at=now,
                ends_at=ends_at,
                last_seen_at=now,
                ip=clipped(ip, 64),
                user_agent=clipped(user_agent),
            )
        )
    return session_id


def get(session_id: str) -> SessionRecord:
    """Give a session, also one that has ended.

    Args:
        session_id: Its id.

    Raises:
        NotFoundError: There is none of that id.
        StoreUnavailableError: The database does not answer.
    """
    with transaction() as session:
        row = session.get(models.Session, session_id) if re.fullmatch(r"[0-9a-f]{32}", session_id) else None
        if row is None:
            raise NotFoundError(f"there is no session {session_id!r:.100}")
        return session_record(row)


def revoke(session_id: str) -> bool:
    """End a session.

    Args:
        session_id: Its id.

    Returns:
        Whether it was still going on.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    return _revoke(models.Session.id == session_id) > 0 if re.fullmatch(r"[0-9a-f]{32}", session_id) else False


def revoke_user(user_id: str) -> int:
    """End all sessions of a user.

    Args:
        user_id: The user's id.

    Returns:
        How many were still going on.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    return _revoke(models.Session.user_id == user_id) if is_identifier(user_id) else 0


def revoke_idp(issuer: str, idp_session: str | None = None, idp_subject: str | None = None) -> int:
    """End the sessions that an identity provider says are over (OpenID Connect Back-Channel Logout 1.0, 2.4).

    Args:
        issuer: Name of the provider.
        idp_session: The provider's id of the session; only this one.
        idp_subject: The provider's id of the user; without `idp_session`, all of this user's.

    Returns:
        How many were still going on.

    Raises:
        InvalidValueError: Neither the session nor the subject is given.
        StoreUnavailableError: The database does not answer.
    """
    if idp_session is None and idp_subject is None:
        raise InvalidValueError("revoke_idp: expected idp_session, idp_subject or both")
    conditions = [models.Session.issuer == issuer]
    for column, value in ((models.Session.idp_session, idp_session), (models.Session.idp_subject, idp_subject)):
        if value is not None:
            if not is_identifier(value):
                return 0
            conditions.append(column == value)
    return _revoke(*conditions)


def list_sessions(user_id: str) -> list[SessionRecord]:
    """Give a user's sessions that have neither ended nor been revoked, newest first.

    Args:
        user_id: The user's id.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    if not is_identifier(user_id):
        return []
    query = (
        select(models.Session)
        .where(
            models.Session.user_id == user_id,
            models.Session.revoked_at.is_(None),
            models.Session.ends_at > utc_now(),
        )
        .order_by(models.Session.created_at.desc(), models.Session.id)
    )
    with transaction() as session:
        return [session_record(row) for row in session.scalars(query)]


def purge(now: datetime | None = None) -> int:
    """Delete the sessions that have ended, which nobody can use anyway.

    Args:
        now: The time.

    Returns:
        How many were deleted.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with transaction() as session:
        found: Any = session.execute(delete_rows(models.Session).where(models.Session.ends_at <= (now or utc_now())))
        return int(found.rowcount)


def _revoke(*conditions: ColumnElement[bool]) -> int:
    with changing() as session:
        found: Any = session.execute(
            update(models.Session)
            .where(models.Session.revoked_at.is_(None), models.Session.ends_at > utc_now(), *conditions)
            .values(revoked_at=utc_now())
            .execution_options(synchronize_session=False)
        )
        return int(found.rowcount)
