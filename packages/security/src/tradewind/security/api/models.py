# SPDX-License-Identifier: Apache-2.0
"""What the JSON routes take and give."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic evaluates the annotations
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tradewind.security.policy.schema import DagSelector, ResourceSelector  # noqa: TC001 - as above

__all__ = [
    "AccessToken",
    "AuditEvents",
    "Binding",
    "Bindings",
    "Credentials",
    "Explanation",
    "Holding",
    "MintedToken",
    "NewTeam",
    "NewToken",
    "NewUser",
    "Reason",
    "Reload",
    "Role",
    "Roles",
    "Rotation",
    "Session",
    "Sessions",
    "Team",
    "Teams",
    "Token",
    "Tokens",
    "User",
    "UserChange",
    "Users",
    "Who",
]

Identifier = Annotated[str, Field(min_length=1, max_length=250)]
Secret = Annotated[str, Field(max_length=1024)]


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Credentials(_Given):
    """A local user's name and password."""

    username: Annotated[str, Field(max_length=1024)]
    password: Secret


class AccessToken(_Shown):
    """A session token."""

    access_token: str


class NewToken(_Given):
    """An API token to be made.

    Args:
        name: For people.
        expires_in: Seconds until it is no longer accepted.
        scopes: Cells that it is limited to; without, all that its owner may do.
        owner: Id of the user or service that it acts for; without, who asks.
    """

    name: Identifier
    expires_in: Annotated[int, Field(ge=60, le=366 * 86400)]
    scopes: Annotated[list[str], Field(min_length=1, max_length=500)] | None = None
    owner: Identifier | None = None


class Rotation(_Given):
    """How a token is replaced.

    Args:
        overlap: Seconds for which the old one is accepted too.
    """

    overlap: Annotated[int, Field(ge=0, le=7 * 86400)] = 0


class Token(_Shown):
    """An API token without its secret."""

    id: str
    name: str
    owner: str
    scopes: list[str] | None
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    rotated_from: str | None
    revoked_at: datetime | None


class MintedToken(Token):
    """An API token, this once with its secret."""

    token: str


class Tokens(_Shown):
    """API tokens."""

    tokens: list[Token]
    total_entries: int


class Session(_Shown):
    """A login that goes on."""

    id: str
    issuer: str | None
    created_at: datetime
    ends_at: datetime
    last_seen_at: datetime
    ip: str | None
    user_agent: str | None
    current: bool = False


class Sessions(_Shown):
    """Logins that go on."""

    sessions: list[Session]
    total_entries: int


class Binding(_Shown):
    """A binding.

    Args:
        id: What it is deleted by; None for one of the policy file.
        place: Where it is written.
    """

    id: int | None
    place: str
    user: str | None = None
    group: str | None = None
    team: str | None = None
    service: str | None = None
    role: str
    scope: str
    dags: DagSelector | None = None
    connections: ResourceSelector | None = None
    variables: ResourceSelector | None = None
    pools: ResourceSelector | None = None


class Bindings(_Shown):
    """Bindings of the policy file and of the database."""

    bindings: list[Binding]
    total_entries: int


class NewUser(_Given):
    """A user or service account to be made."""

    id: Identifier
    kind: Literal["user", "service"] = "user"
    name: Identifier | None = None
    password: Secret | None = None
    must_change_password: bool = True


class UserChange(_Given):
    """What changes of a user; what is not given stays."""

    disabled: bool | None = None
    password: Secret | None = None
    must_change_password: bool = True


class User(_Shown):
    """A user or service account."""

    id: str
    kind: str
    name: str | None
    has_password: bool
    must_change_password: bool
    disabled: bool
    failed_logins: int
    locked_until: datetime | None
    created_at: datetime
    last_login_at: datetime | None


class Users(_Shown):
    """Users and service accounts."""

    users: list[User]
    total_entries: int


class NewTeam(_Given):
    """A team to be made."""

    name: Identifier


class Team(_Shown):
    """A team of users."""

    name: str
    members: list[str]
    created_at: datetime


class Teams(_Shown):
    """Teams of users."""

    teams: list[Team]
    total_entries: int


class Role(_Shown):
    """A role with all its cells, those of roles that it extends included."""

    name: str
    scope: str
    description: str
    cells: list[str]


class Roles(_Shown):
    """The shipped roles, and those of the policy."""

    roles: list[Role]
    total_entries: int


class Holding(_Shown):
    """A role that somebody has."""

    role: str
    subject: str
    limited: bool


class Who(_Shown):
    """Who asks."""

    id: str
    kind: str
    name: str
    groups: list[str]
    teams: list[str]
    roles: list[Holding]
    scopes: list[str] | None
    session: str | None
    token: str | None
    ends_at: datetime | None


class Reason(_Shown):
    """One entry that speaks for or against."""

    source: str
    subject: str
    role: str
    effect: str
    detail: str


class Explanation(_Shown):
    """Whether somebody may do something, and why."""

    user: str
    cell: str
    allowed: bool
    because: list[Reason]


class AuditEvents(_Shown):
    """Events of the audit log, newest first."""

    events: list[dict[str, object]]
    total_entries: int


class Reload(_Shown):
    """What looking at the policy's file gave."""

    changed: bool
    problem: str | None
