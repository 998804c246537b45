# SPDX-License-Identifier: Apache-2.0
"""What the store answers: plain values, checked when they are read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tradewind.security.policy import schema

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from tradewind.security.store import models

__all__ = [
    "SELECTORS",
    "BindingRecord",
    "SessionRecord",
    "TeamRecord",
    "TokenRecord",
    "UserRecord",
    "binding_record",
    "session_record",
    "token_record",
    "user_record",
]

SELECTORS = ("dags", "connections", "variables", "pools")


@dataclass(frozen=True)
class UserRecord:
    """A user or service account.

    Args:
        id: What bindings, tokens and HITL tasks name.
        kind: `user` or `service`.
        name: For display.
        has_password: Whether a password login is possible at all.
        must_change_password: Only a change of the password is allowed.
        disabled: Nothing is allowed.
        failed_logins: Wrong passwords since the last login.
        locked_until: No login before.
        created_at: When it was made.
        last_login_at: The last login with a password.
    """

    id: str
    kind: Literal["user", "service"]
    name: str | None
    has_password: bool
    must_change_password: bool
    disabled: bool
    failed_logins: int
    locked_until: datetime | None
    created_at: datetime
    last_login_at: datetime | None


@dataclass(frozen=True)
class TeamRecord:
    """A team of users.

    Args:
        name: What bindings name.
        members: Ids of users.
        created_at: When it was made.
    """

    name: str
    members: frozenset[str]
    created_at: datetime


@dataclass(frozen=True)
class BindingRecord:
    """A binding of the database.

    Args:
        id: What it is deleted by.
        binding: What it says.
        created_by: Id of who made it.
        created_at: When.
    """

    id: int
    binding: schema.Binding
    created_by: str
    created_at: datetime


@dataclass(frozen=True)
class TokenRecord:
    """An API token, without its secret.

    Args:
        id: The part of the token that is no secret.
        name: For people.
        owner: Id of the user or service that it acts for.
        owner_kind: `user` or `service`.
        groups: Groups that the owner had when the token was made, each `issuer:group`.
        secret_hash: SHA-256 of the secret, in hex.
        scopes: Cells or patterns that it is limited to; None for all that its owner may do.
        created_at: When it was made.
        expires_at: From when on it is not accepted.
        last_used_at: To a minute.
        rotated_from: Id of the token that it replaces.
        revoked_at: When it was revoked.
    """

    id: str
    name: str
    owner: str
    owner_kind: Literal["user", "service"]
    groups: frozenset[str]
    secret_hash: str = field(repr=False)
    scopes: frozenset[str] | None
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    rotated_from: str | None
    revoked_at: datetime | None


@dataclass(frozen=True)
class SessionRecord:
    """A login.

    Args:
        id: What the session's JWT names.
        user_id: Whose it is.
        kind: `user` or `service`.
        name: For display.
        issuer: Name of the identity provider, or None for a password login.
        idp_session: The provider's own id of the session (`sid`).
        idp_subject: The provider's own id of the user (`sub`).
        groups: Groups of the provider, each `issuer:group`.
        created_at: The login.
        ends_at: From when on it is not accepted.
        last_seen_at: The last request, to a minute.
        ip: Where the login came from.
        user_agent: What it came from.
        revoked_at: When it was revoked.
    """

    id: str
    user_id: str
    kind: Literal["user", "service"]
    name: str | None
    issuer: str | None
    idp_session: str | None
    idp_subject: str | None
    groups: frozenset[str]
    created_at: datetime
    ends_at: datetime
    last_seen_at: datetime
    ip: str | None
    user_agent: str | None
    revoked_at: datetime | None


def user_record(row: models.User) -> UserRecord:
    """Give a row as a value.

    Args:
        row: Row of `tw_user`.
    """
    return UserRecord(
        id=row.id,
        kind=_kind(row.kind),
        name=row.name,
        has_password=row.password_hash is not None,
        must_change_password=row.must_change_password,
        disabled=row.disabled,
        failed_logins=row.failed_logins,
        locked_until=row.locked_until,
        created_at=row.created_at,
        last_login_at=row.last_login_at,
    )


def binding_record(row: models.Binding) -> BindingRecord:
    """Give a row as a value.

    Args:
        row: Row of `tw_binding`.

    Raises:
        ValueError: The row is corrupt; read leniently it could grant more than was meant.
    """
    selectors = json.loads(row.selectors)
    if not isinstance(selectors, dict) or not all(
        name in SELECTORS and isinstance(value, dict) for name, value in selectors.items()
    ):
        raise ValueError("selectors: expected an object of objects")
    values: Mapping[str, object] = {
        row.subject_kind: row.subject,
        "role": row.role,
        "scope": row.scope,
        **selectors,
    }
    return BindingRecord(row.id, schema.Binding.model_validate(values), row.created_by, row.created_at)


def token_record(row: models.ApiToken) -> TokenRecord:
    """Give a row as a value.

    Args:
        row: Row of `tw_api_token`.

    Raises:
        ValueError: The row is corrupt; read leniently it could grant more than was meant.
    """
    return TokenRecord(
        id=row.id,
        name=row.name,
        owner=row.owner,
        owner_kind=_kind(row.owner_kind),
        groups=_strings(row.groups, "groups"),
        secret_hash=row.secret_hash,
        scopes=None if row.scopes is None else _strings(row.scopes, "scopes"),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        rotated_from=row.rotated_from,
        revoked_at=row.revoked_at,
    )


def session_record(row: models.Session) -> SessionRecord:
    """Give a row as a value.

    Args:
        row: Row of `tw_session`.

    Raises:
        ValueError: The row is corrupt.
    """
    return SessionRecord(
        id=row.id,
        user_id=row.user_id,
        kind=_kind(row.kind),
        name=row.name,
        issuer=row.issuer,
        idp_session=row.idp_session,
        idp_subject=row.idp_subject,
        groups=_strings(row.groups, "groups"),
        created_at=row.created_at,
        ends_at=row.ends_at,
        last_seen_at=row.last_seen_at,
        ip=row.ip,
        user_agent=row.user_agent,
        revoked_at=row.revoked_at,
    )


def _kind(value: str) -> Literal["user", "service"]:
    if value == "user":
        return "user"
    if value == "service":
        return "service"
    raise ValueError(f"kind {value!r}: expected user or service")


def _strings(text: str, what: str) -> frozenset[str]:
    values = json.loads(text)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{what}: expected a list of strings")
    return frozenset(values)
