# SPDX-License-Identifier: Apache-2.0
"""What a policy file may say: one pydantic model, which is the published JSON Schema too.

Only the shape and what follows from one entry is checked here; `loader` checks references between entries
and adds file and line to every message.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tradewind.security.policy.cells import expand

__all__ = [
    "Binding",
    "ClaimBinding",
    "DagSelector",
    "Deny",
    "Issuer",
    "Plugins",
    "PolicyFile",
    "ResourceSelector",
    "Role",
    "Session",
    "Subject",
    "applies_here",
    "seconds",
]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


def seconds(value: object) -> object:
    """Give a duration in seconds: a number of them, or a number with s, m, h or d.

    >>> seconds("12h"), seconds(30)
    (43200, 30)
    """
    if isinstance(value, str):
        found = re.fullmatch(r"(\d+)([smhd]?)", value.strip())
        if not found:
            raise ValueError(f"{value!r}: expected a duration such as 30s, 15m, 12h or 7d")
        return int(found[1]) * _UNITS[found[2] or "s"]
    return value


def _cell(value: object) -> object:
    if isinstance(value, str):
        from tradewind.security.exceptions import PolicyError

        try:
            expand(value)
        except PolicyError as error:
            raise ValueError(str(error)) from None
    return value


def _glob(value: object) -> object:
    if isinstance(value, str) and ("[" in value or "]" in value):
        raise ValueError(f"{value!r}: patterns know * (any characters) and ? (one character) only")
    return value


def _url(value: object) -> object:
    if isinstance(value, str):
        parts = urlsplit(value)
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ValueError(f"{value!r}: expected https (http only on loopback)")
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{value!r}: expected an https URL without query and fragment")
        if parts.username or parts.password:
            raise ValueError("a URL must not carry a password")
    return value


Duration = Annotated[int, BeforeValidator(seconds), Field(gt=0)]
Cell = Annotated[str, BeforeValidator(_cell)]
Glob = Annotated[str, BeforeValidator(_glob), Field(min_length=1, max_length=250)]
Url = Annotated[str, BeforeValidator(_url)]
Name = Annotated[str, Field(min_length=1, max_length=250)]
Scope = Annotated[
    str, Field(pattern=r"^(organization|workspace|deployment|team)/[^/\s]+$", examples=["workspace/data", "team/sales"])
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DagSelector(_Model):
    """The Dags that a binding is limited to: those that match any of the lists.

    Args:
        ids: Ids, or patterns with `*` and `?`.
        tags: Tags. Whoever can push a Dag file chooses its tags.
        bundles: Names of Dag bundles.
        teams: Names of teams (`[core] multi_team`).
    """

    ids: tuple[Glob, ...] = ()
    tags: tuple[Name, ...] = ()
    bundles: tuple[Name, ...] = ()
    teams: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _not_empty(self) -> DagSelector:
        if not (self.ids or self.tags or self.bundles or self.teams):
            raise ValueError("expected at least one of ids, tags, bundles, teams")
        return self


class ResourceSelector(_Model):
    """The connections, variables or pools that a binding is limited to: those that match any of the lists.

    Args:
        ids: Ids, keys or names, or patterns with `*` and `?`.
        teams: Names of teams (`[core] multi_team`).
    """

    ids: tuple[Glob, ...] = ()
    teams: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _not_empty(self) -> ResourceSelector:
        if not (self.ids or self.teams):
            raise ValueError("expected at least one of ids, teams")
        return self


class Subject(_Model):
    """Whom an entry is about: exactly one of the four.

    Args:
        user: Id of a user.
        group: `<issuer>:<group>` of an identity provider.
        team: Name of a team of users.
        service: Id of a service account.
    """

    user: Name | None = None
    group: Annotated[str, Field(pattern=r"^[^:\s]+:.+$", examples=["corp:sre"])] | None = None
    team: Name | None = None
    service: Name | None = None

    @model_validator(mode="after")
    def _one_subject(self) -> Subject:
        if sum(value is not None for value in (self.user, self.group, self.team, self.service)) != 1:
            raise ValueError("expected exactly one of user, group, team, service")
        return self

    @property
    def subject(self) -> tuple[str, str]:
        """Kind and name."""
        for kind in ("user", "group", "team", "service"):
            value = getattr(self, kind)
            if value is not None:
                return kind, value
        raise AssertionError("validated above")


class Binding(Subject):
    """Gives a role to a subject.

    Args:
        role: Name of a role.
        scope: Where: `organization/<o>`, `workspace/<w>`, `deployment/<d>` or `team/<t>`.
        dags: Limits the role's Dag cells to these Dags.
        connections: Limits the role's connection cells to these.
        variables: Limits the role's variable cells to these.
        pools: Limits the role's pool cells to these.
    """

    role: Name
    scope: Scope
    dags: DagSelector | None = None
    connections: ResourceSelector | None = None
    variables: ResourceSelector | None = None
    pools: ResourceSelector | None = None


class Deny(Subject):
    """Takes cells from a subject, whatever else grants them.

    Args:
        cells: Cells or patterns.
        dags: Takes Dag cells only for these Dags.
    """

    cells: Annotated[tuple[Cell, ...], Field(min_length=1)]
    dags: DagSelector | None = None


class Role(_Model):
    """A set of cells with a name.

    Args:
        scope: The level that it is bound at.
        extends: Roles whose cells it has too.
        allow: Cells or patterns.
        description: For people.
        template: Meant to be extended by other roles.
    """

    scope: Literal["organization", "workspace", "deployment", "dag", "team"] = "deployment"
    extends: tuple[Name, ...] = ()
    allow: tuple[Cell, ...] = ()
    description: str = ""
    template: bool = False


class ClaimBinding(_Model):
    """Gives a role at this deployment to a workload whose token carries a claim.

    Args:
        claim: Name of the claim.
        equals: Its value; a list-valued claim must contain it.
        role: Name of a role.
    """

    claim: Name
    equals: str
    role: Name


class Issuer(_Model):
    """An OpenID Connect provider that is trusted.

    Args:
        name: Short name; groups are `<name>:<group>`, the callback knows it by this.
        issuer: The `iss` of its tokens; discovery is read from here.
        client_id: Our client there. Without one the issuer has no login, only Bearer tokens.
        client_secret_env: Environment variable that holds the client's secret; without, a public client.
        audience: The `aud` that a Bearer token must have.
        scopes: What a login asks for.
        user_claim: Claim with the user's id; without, `email` (unless `email_verified` is false), then
            `preferred_username`, then `sub`.
        groups_claim: Claim with the list of groups.
        teams: Groups of the provider that are members of our teams: team by group.
        leeway: How far clocks may differ, in seconds.
        algorithms: Signatures that are accepted; symmetric ones and `none` never are.
        workload: Tokens are of CI jobs: principals are workloads, their roles come from `bind`.
        bind: Roles by claim, for workloads.
        label: What the login page's button says.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    issuer: Url
    client_id: Name | None = None
    client_secret_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    audience: Name | None = None
    scopes: tuple[Name, ...] = ("openid", "profile", "email")
    user_claim: Name | None = None
    groups_claim: Name = "groups"
    teams: dict[str, str] = Field(default_factory=dict)
    leeway: Annotated[int, BeforeValidator(seconds), Field(ge=0, le=300)] = 30
    algorithms: Annotated[tuple[Literal[_ASYMMETRIC], ...], Field(min_length=1)] = ("RS256", "ES256")  # type: ignore[valid-type]
    workload: bool = False
    bind: tuple[ClaimBinding, ...] = ()
    label: str | None = None

    @model_validator(mode="after")
    def _usable(self) -> Issuer:
        if not self.client_id and not self.audience:
            raise ValueError("expected client_id (for logins), audience (for Bearer tokens) or both")
        if self.workload and not self.audience:
            raise ValueError("a workload issuer needs audience")
        if self.bind and not self.workload:
            raise ValueError("bind is for issuers with workload: true; users get roles by bindings")
        if "openid" not in self.scopes:
            raise ValueError("scopes must contain openid")
        return self


class Session(_Model):
    """How long a login lasts.

    Args:
        idle: Without a request, in seconds or as `1h`.
        absolute: In any case.
    """

    idle: Duration = 3600
    absolute: Duration = 43200


class Plugins(_Model):
    """Who may reach the apps that plugins mount into the API server.

    Args:
        default: `authenticated` asks for a login, `deny` for the cell `custom_view` too.
        anonymous: Path prefixes that everybody may reach.
    """

    default: Literal["authenticated", "deny"] = "authenticated"
    anonymous: tuple[Annotated[str, Field(pattern=r"^/[^\s]*$")], ...] = ()


class PolicyFile(_Model):
    """A policy.

    Args:
        version: Version of this format.
        organization: The organization that this deployment belongs to.
        workspace: The workspace that it belongs to.
        deployment: Its name.
        issuers: Trusted identity providers.
        roles: Own roles by name.
        bindings: Who has which role where.
        deny: What is taken from whom.
        session: How long logins last.
        plugins: Who may reach plugins' apps.
        docs: Who may open `/docs`, `/redoc` and `/openapi.json`.
    """

    version: Literal[1]
    organization: Annotated[str, Field(pattern=r"^[^/\s]+$")] = "default"
    workspace: Annotated[str, Field(pattern=r"^[^/\s]+$")] = "default"
    deployment: Annotated[str, Field(pattern=r"^[^/\s]+$")] = "default"
    issuers: tuple[Issuer, ...] = ()
    roles: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], Role] = Field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    deny: tuple[Deny, ...] = ()
    session: Session = Session()
    plugins: Plugins = Plugins()
    docs: Literal["authenticated", "anonymous"] = "authenticated"


def applies_here(scope: str, policy: PolicyFile) -> bool:
    """Tell whether a binding's scope contains this deployment.

    >>> applies_here("workspace/data", PolicyFile(version=1, workspace="data"))
    True
    """
    kind, _, name = scope.partition("/")
    return kind == "team" or name == getattr(policy, kind)
