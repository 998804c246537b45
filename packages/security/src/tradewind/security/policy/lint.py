# SPDX-License-Identifier: Apache-2.0
"""Finds what a policy says that its author can hardly mean; the loader has refused what is plainly wrong."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from tradewind.security.policy.cells import expand, names_of
from tradewind.security.policy.pages import PAGES, UNASKED
from tradewind.security.policy.schema import applies_here

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from tradewind.security.policy.loader import Policy
    from tradewind.security.policy.schema import Binding, Issuer, Subject

__all__ = ["Finding", "Severity", "lint"]

Severity = Literal["error", "warning", "info"]

_ORDER: tuple[Severity, ...] = ("error", "warning", "info")
_SELECTORS = ("dags", "connections", "variables", "pools")
_MANAGES = "tw.role.assign:*"

_OPEN_CLAIMS = {
    "actor",
    "actor_id",
    "aud",
    "base_ref",
    "event_name",
    "head_ref",
    "pipeline_source",
    "ref",
    "ref_protected",
    "ref_type",
    "runner_environment",
    "user_email",
    "user_login",
    "workflow",
}
"""Claims that whoever runs any job at a public CI service chooses: they say nothing of whose repository it is."""


@dataclass(frozen=True)
class Finding:
    """Something to look at.

    Args:
        id: What it is, for example `page-incomplete`.
        severity: `error` (it can't work as written), `warning` (it is unsafe or has no effect) or `info`.
        place: Where, for example `policy.yaml:12`.
        message: What is the case, in one sentence.
        fix: What to do.
    """

    id: str
    severity: Severity
    place: str
    message: str
    fix: str


def lint(
    policy: Policy,
    *,
    environment: Mapping[str, str] = os.environ,
    bindings: Sequence[tuple[str, Binding]] = (),
    teams: Collection[str] | None = None,
) -> list[Finding]:
    """Give the findings of a policy, the gravest first.

    Args:
        policy: The policy.
        environment: Environment variables of the API server.
        bindings: The database's bindings with their places.
        teams: The database's teams, or None where they are not known.
    """
    everything = [*policy.bindings, *bindings]
    findings = [
        *_pages(policy),
        *_useless_cells(policy),
        *_unreachable(policy),
        *_shadowed(policy, everything),
        *_selectors(policy),
        *_unknown_teams(policy, teams),
        *_denies(policy, everything, complete=teams is not None),
        *_owners(policy, everything, complete=teams is not None),
        *_issuers(policy, environment),
        *_plugins(policy),
    ]
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))


def _pages(policy: Policy) -> Iterator[Finding]:
    for name in policy.file.roles:
        held = set(names_of(policy.masks[name]))
        for page, (menu, asked) in PAGES.items():
            missing = sorted(asked - held)
            if menu in held and missing:
                yield Finding(
                    "page-incomplete",
                    "warning",
                    policy.place("roles", name),
                    f"role {name!r} shows the page {page} in the menu, which answers 403 without {', '.join(missing)}",
                    f"allow {', '.join(missing)}, or don't allow {menu}",
                )


def _useless_cells(policy: Policy) -> Iterator[Finding]:
    for name, role in policy.file.roles.items():
        for index, pattern in enumerate(role.allow):
            if expand(pattern) <= UNASKED:
                yield Finding(
                    "cell-unasked",
                    "info",
                    policy.place("roles", name, "allow", index),
                    f"role {name!r} allows {pattern}, which no route of this Airflow asks for",
                    "leave it out",
                )


def _unreachable(policy: Policy) -> Iterator[Finding]:
    for index, binding in enumerate(policy.file.bindings):
        if not applies_here(binding.scope, policy.file):
            here = ", ".join(
                f"{key}/{getattr(policy.file, key)}" for key in ("organization", "workspace", "deployment")
            )
            yield Finding(
                "binding-elsewhere",
                "info",
                policy.place("bindings", index),
                f"the binding of {_who(binding)} is for {binding.scope} and grants nothing at this deployment ({here})",
                "nothing, if this file is shared by several deployments",
            )


def _shadowed(policy: Policy, bindings: Sequence[tuple[str, Binding]]) -> Iterator[Finding]:
    here = [(place, binding) for place, binding in bindings if applies_here(binding.scope, policy.file)]
    for number, (place, binding) in enumerate(here):
        for other_number, (other_place, other) in enumerate(here):
            if number == other_number or not _covers(policy, other, binding):
                continue
            if _covers(policy, binding, other) and number < other_number:
                # They say the same: the later one is too many.
                continue
            yield Finding(
                "binding-shadowed",
                "info",
                place,
                f"{_who(binding)} has all of role {binding.role!r} by {other_place} ({other.role}) already",
                "delete it, or narrow the other one",
            )
            break


def _covers(policy: Policy, wide: Binding, narrow: Binding) -> bool:
    if wide.subject != narrow.subject:
        return False
    wide_mask, narrow_mask = policy.masks.get(wide.role, 0), policy.masks.get(narrow.role, 0)
    if narrow_mask & ~wide_mask or not narrow_mask:
        return False
    if wide.scope.startswith("team/") and wide.scope != narrow.scope:
        return False
    return all(getattr(wide, key) in (None, getattr(narrow, key)) for key in _SELECTORS)


def _selectors(policy: Policy) -> Iterator[Finding]:
    for index, binding in enumerate(policy.file.bindings):
        if binding.dags is not None and binding.dags.tags:
            yield Finding(
                "tag-chosen-by-author",
                "warning",
                policy.place("bindings", index, "dags"),
                f"{_who(binding)} gets the Dags with tag {', '.join(binding.dags.tags)}: "
                "whoever can push a Dag file chooses its tags",
                "bind by bundles or teams, which operators set, or accept that authors share their Dags so",
            )
        for key in _SELECTORS:
            selector = getattr(binding, key)
            if selector is not None and "*" in selector.ids:
                yield Finding(
                    "selector-matches-all",
                    "info",
                    policy.place("bindings", index, key),
                    f"ids ['*'] limits nothing: {_who(binding)} gets all {key}, those of the future too",
                    f"leave out {key} if the role can be bound without, or name patterns such as 'sales_*'",
                )


def _unknown_teams(policy: Policy, teams: Collection[str] | None) -> Iterator[Finding]:
    mapped = {team for issuer in policy.file.issuers for team in issuer.teams.values()}
    known = mapped | set(teams or ())
    entries: list[tuple[str, int, str | None]] = [
        *(("bindings", index, binding.team) for index, binding in enumerate(policy.file.bindings)),
        *(("deny", index, deny.team) for index, deny in enumerate(policy.file.deny)),
    ]
    for key, index, team in entries:
        if team is None or team in known:
            continue
        yield Finding(
            "team-unknown",
            "info" if teams is None else "warning",
            policy.place(key, index),
            f"no issuer puts anybody into team {team!r}"
            + (
                ", so it must be a team of the database"
                if teams is None
                else ", and there is no such team in the database"
            ),
            f"airflow tradewind-auth teams create {team}",
        )
    named = {team for _, _, team in entries}
    for number, issuer in enumerate(policy.file.issuers):
        for group, team in issuer.teams.items():
            if team not in named:
                yield Finding(
                    "team-unused",
                    "info",
                    policy.place("issuers", number, "teams"),
                    f"group {group!r} of {issuer.name!r} is put into team {team!r}, which no entry of this file names",
                    "bind the team, or leave the mapping out",
                )


def _denies(policy: Policy, bindings: Sequence[tuple[str, Binding]], *, complete: bool) -> Iterator[Finding]:
    here = [binding for _, binding in bindings if applies_here(binding.scope, policy.file)]
    granted = {cell for binding in here for cell in names_of(policy.masks.get(binding.role, 0))}
    granted |= {
        cell for issuer in policy.file.issuers for bind in issuer.bind for cell in names_of(policy.masks[bind.role])
    }
    for index, deny in enumerate(policy.file.deny):
        taken = {cell for pattern in deny.cells for cell in expand(pattern)}
        if not taken & granted:
            yield Finding(
                "deny-without-effect",
                "info",
                policy.place("deny", index),
                f"nothing grants {', '.join(deny.cells)} to anybody at this deployment"
                + ("" if complete else " (the database's bindings were not looked at)"),
                "leave it out, or check the spelling of its cells",
            )
        owners = {b.subject for b in here if _MANAGES in names_of(policy.masks.get(b.role, 0))}
        if deny.dags is None and _MANAGES in taken and owners == {deny.subject}:
            yield Finding(
                "deny-hits-last-owner",
                "error",
                policy.place("deny", index),
                f"{_who(deny)} is the only one who can give roles, and this takes {_MANAGES} from them",
                "deny narrower cells, or bind another owner",
            )


def _owners(policy: Policy, bindings: Iterable[tuple[str, Binding]], *, complete: bool) -> Iterator[Finding]:
    if any(
        _MANAGES in names_of(policy.masks.get(binding.role, 0)) and applies_here(binding.scope, policy.file)
        for _, binding in bindings
    ):
        return
    yield Finding(
        "nobody-owns",
        "warning" if complete else "info",
        policy.place("bindings"),
        "no binding makes anybody an owner or administrator of this deployment"
        + ("" if complete else " (the database's bindings were not looked at)"),
        "bind org_owner, ws_owner or deployment_admin to a group of your identity provider",
    )


def _issuers(policy: Policy, environment: Mapping[str, str]) -> Iterator[Finding]:
    for index, issuer in enumerate(policy.file.issuers):
        yield from _issuer(policy, index, issuer, environment)


def _issuer(policy: Policy, index: int, issuer: Issuer, environment: Mapping[str, str]) -> Iterator[Finding]:
    if urlsplit(issuer.issuer).scheme == "http":
        yield Finding(
            "issuer-http",
            "warning",
            policy.place("issuers", index, "issuer"),
            f"issuer {issuer.name!r} is reached by http: fit for development on this machine only",
            "use https",
        )
    if issuer.client_secret_env is not None and not environment.get(issuer.client_secret_env):
        yield Finding(
            "client-secret-unset",
            "warning",
            policy.place("issuers", index, "client_secret_env"),
            f"variable {issuer.client_secret_env} is not set in this environment: logins by {issuer.name!r} need it",
            "set it for the API server, or leave client_secret_env out for a public client",
        )
    for number, bind in enumerate(issuer.bind):
        if bind.claim in _OPEN_CLAIMS:
            yield Finding(
                "claim-open",
                "warning",
                policy.place("issuers", index, "bind", number),
                f"any job at {issuer.issuer}, also a stranger's, can have a token with {bind.claim} = {bind.equals!r}",
                "bind to a claim that names your own repository or project, such as repository or sub",
            )
    for number, binding in enumerate(policy.file.bindings):
        if issuer.workload and (binding.group or "").startswith(f"{issuer.name}:"):
            yield Finding(
                "group-of-workloads",
                "warning",
                policy.place("bindings", number, "group"),
                f"{issuer.name!r} is a workload issuer, whose principals are in no group: the binding grants nothing",
                "give the role by 'bind' of the issuer",
            )


def _plugins(policy: Policy) -> Iterator[Finding]:
    if "/" in policy.file.plugins.anonymous:
        yield Finding(
            "plugins-anonymous",
            "warning",
            policy.place("plugins", "anonymous"),
            "'/' opens the apps of all plugins to everybody, without a login",
            "name the prefixes of the plugins that are meant",
        )


def _who(entry: Subject) -> str:
    return " ".join(entry.subject)
