# SPDX-License-Identifier: Apache-2.0
"""From a password or an identity provider's answer to a session."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from tradewind.security.api.guard import manager_of
from tradewind.security.api.trail import address_of, note
from tradewind.security.exceptions import CredentialError
from tradewind.security.principal import Principal

if TYPE_CHECKING:
    from starlette.requests import Request

    from tradewind.security.identity.oidc import Login
    from tradewind.security.store.records import UserRecord

__all__ = ["check_password", "open_session", "principal_of_user", "refuse_local_name", "session_token"]


def check_password(request: Request, username: str, password: str) -> UserRecord:
    """Give the local user whom a password is of.

    Args:
        request: The request.
        username: What was given as the user's id.
        password: What was given as the password.

    Raises:
        CredentialError: Not accepted; it is in the audit log already.
        StoreUnavailableError: The database does not answer.
    """
    from tradewind.security.store import users

    try:
        return users.login(username, password)
    except CredentialError as error:
        # What is no user's name may be a password in the wrong field.
        known = None if error.reason == "unknown_user" else error.subject
        note(request, "login", subject=known, outcome="failure", reason=error.reason)
        raise


def principal_of_user(user: UserRecord) -> Principal:
    """Give the principal of a local user without a session."""
    return Principal(user.id, name=user.name)


def open_session(
    request: Request, who: Principal, *, most_seconds: float | None = None, login: Login | None = None
) -> Principal:
    """Open a session.

    Args:
        request: The login's request.
        who: Whose.
        most_seconds: End it after so many seconds at the latest, besides the policy's limit.
        login: The identity provider's part of it.

    Returns:
        The principal with its session.

    Raises:
        InvalidValueError: What an identity provider says of the user can't be stored.
        StoreUnavailableError: The database does not answer.
    """
    from tradewind.security.store import sessions
    from tradewind.security.store.transaction import utc_now

    absolute = manager_of(request).policies.current().file.session.absolute
    ends_at = utc_now() + timedelta(seconds=absolute if most_seconds is None else min(absolute, most_seconds))
    session = sessions.start(
        who.id,
        ends_at=ends_at,
        name=who.name,
        ip=address_of(request),
        user_agent=request.headers.get("user-agent"),
        issuer=login.issuer if login else None,
        idp_session=login.session if login else None,
        idp_subject=login.subject if login else None,
        groups=who.groups,
    )
    opened = replace(who, session=session, ends_at=ends_at.timestamp())
    note(request, "login", opened, issuer=login.issuer if login else None)
    return opened


def session_token(request: Request, who: Principal) -> str:
    """Give what a browser carries: a token that ends when the session is idle for too long.

    Args:
        request: The request.
        who: A principal with a session.
    """
    return manager_of(request).generate_jwt(replace(who, renewing=True))


def refuse_local_name(request: Request, login: Login) -> None:
    """Refuse an identity provider's user who would become a local one by the choice of a name.

    Args:
        request: The request.
        login: The login.

    Raises:
        CredentialError: A name that people may choose is that of a local user or service account.
        StoreUnavailableError: The database does not answer.
    """
    from tradewind.security.identity.claims import could_be_chosen

    who = login.principal
    snapshot = manager_of(request).directory.snapshot()
    if who.id in snapshot.disabled:
        raise CredentialError("disabled", who.id)
    issuers = {issuer.name: issuer for issuer in manager_of(request).policies.current().file.issuers}
    issuer = issuers.get(login.issuer)
    if who.id in snapshot.local and (issuer is None or could_be_chosen(issuer, who.id)):
        raise CredentialError("name_of_a_local_user", who.id)
