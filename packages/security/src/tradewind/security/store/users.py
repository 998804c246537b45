# SPDX-License-Identifier: Apache-2.0
"""Local users and service accounts, and logins with a password."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, or_, select, update

from tradewind.security.exceptions import ConflictError, CredentialError, InvalidValueError, NotFoundError
from tradewind.security.passwords import generate_password, hash_password, verify_password
from tradewind.security.store import models
from tradewind.security.store.checks import identifier, is_identifier
from tradewind.security.store.records import UserRecord, user_record
from tradewind.security.store.transaction import changing, transaction, utc_now

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any, Literal

    from sqlalchemy.orm import Session
    from sqlalchemy.sql import ColumnElement

__all__ = [
    "UserRecord",
    "create",
    "disable",
    "enable",
    "first_admin",
    "get",
    "list_users",
    "login",
    "set_password",
]

_FREE_FAILURES = 5
_FIRST_LOCK_SECONDS = 60
_LONGEST_LOCK_SECONDS = 3600


def create(
    user_id: str,
    *,
    kind: Literal["user", "service"] = "user",
    name: str | None = None,
    password: str | None = None,
    must_change_password: bool = False,
) -> UserRecord:
    """Make a user or service account.

    Args:
        user_id: What bindings will name; up to 250 characters.
        kind: `service` for an account that only API tokens use.
        name: For display.
        password: Without one there is no password login.
        must_change_password: Let the user do nothing but choose another password first.

    Raises:
        ConflictError: There is a user or service of that id.
        InvalidValueError: An argument can't be used.
        StoreUnavailableError: The database does not answer.
    """
    identifier("user id", user_id)
    if kind not in ("user", "service"):
        raise InvalidValueError(f"kind {kind!r}: expected user or service")
    if kind == "service" and password is not None:
        raise InvalidValueError(f"service account {user_id!r}: expected no password; services use API tokens")
    if name is not None:
        identifier("name", name)
    password_hash = None if password is None else hash_password(password)
    with changing() as session:
        if session.get(models.User, user_id):
            raise ConflictError(f"user {user_id!r} exists already")
        return _add(session, user_id, kind, name, password_hash, must_change_password=must_change_password)


def get(user_id: str) -> UserRecord:
    """Give a user or service account.

    Args:
        user_id: Its id.

    Raises:
        NotFoundError: There is none of that id.
        StoreUnavailableError: The database does not answer.
    """
    with transaction() as session:
        return user_record(_row(session, user_id))


def list_users(kind: Literal["user", "service"] | None = None) -> list[UserRecord]:
    """Give all users and service accounts, by id.

    Args:
        kind: Only these.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    query = select(models.User).order_by(models.User.id)
    if kind is not None:
        query = query.where(models.User.kind == kind)
    with transaction() as session:
        return [user_record(row) for row in session.scalars(query)]


def disable(user_id: str) -> None:
    """Switch a user or service off: no login, no session and no API token of theirs is accepted.

    Args:
        user_id: Its id. Somebody known to an identity provider only is made with `create` first.

    Raises:
        NotFoundError: There is none of that id.
        StoreUnavailableError: The database does not answer.
    """
    with changing() as session:
        _row(session, user_id).disabled = True
        _end_sessions(session, user_id)


def enable(user_id: str) -> None:
    """Switch a user or service on again, and unlock the password login.

    Args:
        user_id: Its id.

    Raises:
        NotFoundError: There is none of that id.
        StoreUnavailableError: The database does not answer.
    """
    with changing() as session:
        row = _row(session, user_id)
        row.disabled = False
        row.failed_logins = 0
        row.locked_until = None


def set_password(
    user_id: str, password: str, *, must_change_password: bool = False, keep_session: str | None = None
) -> None:
    """Give a user another password; their sessions end.

    Args:
        user_id: Id of a user.
        password: The new password.
        must_change_password: Let the user do nothing but choose another one first.
        keep_session: Id of the session that goes on: that in which the user changes the password.

    Raises:
        InvalidValueError: The password can't be used, or it is a service account.
        NotFoundError: There is no user of that id.
        StoreUnavailableError: The database does not answer.
    """
    password_hash = hash_password(password)
    with changing() as session:
        row = _row(session, user_id)
        if row.kind != "user":
            raise InvalidValueError(f"service account {user_id!r}: expected a user; services use API tokens")
        row.password_hash = password_hash
        row.must_change_password = must_change_password
        row.failed_logins = 0
        row.locked_until = None
        _end_sessions(session, user_id, keep=keep_session)


def login(user_id: str, password: str, now: datetime | None = None) -> UserRecord:
    """Check a password.

    Five failures lock the login for a minute, each further one for twice as long, up to an hour. An attempt
    is counted before the password is looked at, so that attempts at the same time get no more tries.

    Args:
        user_id: What was given as the user's id.
        password: What was given as the password.
        now: The time.

    Raises:
        CredentialError: Not accepted: unknown_user, no_password, disabled, locked, wrong_password or
            changed_meanwhile.
        StoreUnavailableError: The database does not answer.
    """
    moment = now or utc_now()
    refused, stored = _count_attempt(user_id, moment) if is_identifier(user_id) else ("unknown_user", None)
    accepted = verify_password(password, stored)
    if refused or not accepted:
        raise CredentialError(refused or "wrong_password", subject=user_id[:250])
    with transaction() as session:
        # Somebody may have disabled the user or set another password while scrypt ran.
        if not _update(
            session,
            {"failed_logins": 0, "locked_until": None, "last_login_at": moment},
            models.User.id == user_id,
            models.User.password_hash == stored,
            models.User.disabled.is_(False),
        ):
            raise CredentialError("changed_meanwhile", subject=user_id)
        return user_record(_row(session, user_id))


def first_admin(organization: str, password: str | None = None) -> str | None:
    """Make the user `admin` if there is no user at all.

    Args:
        organization: The organization that the user will own.
        password: The password; None for a random one, which has to be changed.

    Returns:
        The password, which is not kept anywhere; None if there is a user, also one that another process
        has just made.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    count = select(func.count()).select_from(models.User)
    with transaction() as session:
        if session.scalar(count):
            return None
    given = password
    password = given or generate_password()
    password_hash = hash_password(password)
    with changing() as session:
        if session.scalar(count):
            return None
        _add(session, "admin", "user", None, password_hash, must_change_password=given is None)
        session.add(
            models.Binding(
                subject_kind="user",
                subject="admin",
                role="org_owner",
                scope=f"organization/{organization}",
                selectors="{}",
                created_by="admin",
                created_at=utc_now(),
            )
        )
    return password


def _add(
    session: Session,
    user_id: str,
    kind: str,
    name: str | None,
    password_hash: str | None,
    *,
    must_change_password: bool,
) -> UserRecord:
    row = models.User(
        id=user_id,
        kind=kind,
        name=name,
        password_hash=password_hash,
        must_change_password=must_change_password,
        failed_logins=0,
        disabled=False,
        created_at=utc_now(),
    )
    session.add(row)
    return user_record(row)


def _row(session: Session, user_id: str) -> models.User:
    row = session.get(models.User, user_id, populate_existing=True) if is_identifier(user_id) else None
    if row is None:
        raise NotFoundError(f"there is no user or service {user_id!r:.300}")
    return row


def _update(session: Session, values: dict[str, Any], *where: ColumnElement[bool]) -> int:
    statement = update(models.User).where(*where).values(values).execution_options(synchronize_session=False)
    return int(session.execute(statement).rowcount)  # type: ignore[attr-defined]


def _count_attempt(user_id: str, now: datetime) -> tuple[str | None, str | None]:
    while True:
        with transaction() as session:
            row = session.get(models.User, user_id)
            if row is None:
                return "unknown_user", None
            if row.password_hash is None:
                return "no_password", None
            if row.disabled:
                return "disabled", None
            if row.locked_until is not None and row.locked_until > now:
                return "locked", None
            failures = row.failed_logins + 1
            # Fails, and is tried again, if another process has counted an attempt since.
            if _update(
                session,
                {"failed_logins": failures, "locked_until": _locked_until(failures, now)},
                models.User.id == user_id,
                models.User.failed_logins == row.failed_logins,
                or_(models.User.locked_until.is_(None), models.User.locked_until <= now),
            ):
                return None, row.password_hash


def _locked_until(failures: int, now: datetime) -> datetime | None:
    over = failures - _FREE_FAILURES
    if over < 0:
        return None
    return now + timedelta(seconds=min(_FIRST_LOCK_SECONDS * 2 ** min(over, 10), _LONGEST_LOCK_SECONDS))


def _end_sessions(session: Session, user_id: str, keep: str | None = None) -> None:
    session.execute(
        update(models.Session)
        .where(
            models.Session.user_id == user_id, models.Session.revoked_at.is_(None), models.Session.id != (keep or "")
        )
        .values(revoked_at=utc_now())
    )
