# SPDX-License-Identifier: Apache-2.0
"""Why somebody may or may not do something: one question, answered from the entries themselves.

Walks through bindings and denies one by one and knows nothing of the masks that `compiler` unites; a test
compares the answers of both. What a question without a name means is said in `compiler`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from tradewind.security.exceptions import InvalidValueError
from tradewind.security.policy.cells import CELLS, expand, names_of
from tradewind.security.policy.compiler import NO_FACTS, denies_of, grants_of, subjects_of
from tradewind.security.policy.schema import DagSelector, ResourceSelector, applies_here

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tradewind.security.policy.compiler import DagFacts, Grant
    from tradewind.security.policy.loader import Policy
    from tradewind.security.policy.schema import Binding, Deny
    from tradewind.security.principal import Principal

__all__ = ["KINDS", "Explanation", "Kind", "Reason", "explain", "kind_of"]

Kind = Literal["dag", "connection", "variable", "pool", "team"]
Effect = Literal["grants", "denies", "limits", "needs"]

KINDS: tuple[Kind, ...] = ("dag", "connection", "variable", "pool", "team")
"""Kinds of resources that a question can name."""

_READ_DAG = "dag:GET"


@dataclass(frozen=True)
class Reason:
    """One entry that decides, or nearly does.

    Args:
        source: Where it is written, for example `policy.yaml:12`.
        subject: Kind and name of whom it is about, for example `user:alice`; empty where it is about everybody.
        role: The role that it gives, or empty.
        effect: `grants`, `denies`, `limits` (it would grant, but not this) or `needs` (what would grant it).
        detail: One sentence.
    """

    source: str
    subject: str
    role: str
    effect: Effect
    detail: str


@dataclass(frozen=True)
class Explanation:
    """An answer with its reasons.

    Args:
        allowed: The answer.
        because: The entries behind it; those that decide come first.
    """

    allowed: bool
    because: tuple[Reason, ...]


@dataclass(frozen=True)
class _Question:
    cell: str
    kind: Kind | None
    name: str | None
    team: str | None
    facts: DagFacts

    @property
    def reads(self) -> bool:
        return self.cell.endswith(":GET")

    @property
    def what(self) -> str:
        return f"{self.cell} on {self.kind} {self.name!r}" if self.name else self.cell


def kind_of(cell: str) -> Kind | None:
    """Give the kind of resource that a cell is about, or None where it is about none that can be named.

    >>> kind_of("dag.run:POST"), kind_of("view.jobs:GET")
    ('dag', None)
    """
    resource = cell.partition(":")[0].partition(".")[0]
    return next((kind for kind in KINDS if kind == resource), None)


def explain(  # noqa: PLR0913 # each is a part of the question
    principal: Principal,
    policy: Policy,
    bindings: Iterable[tuple[str, Binding]],
    teams: frozenset[str],
    cell: str,
    *,
    kind: Kind | None = None,
    name: str | None = None,
    team: str | None = None,
    facts: DagFacts = NO_FACTS,
) -> Explanation:
    """Tell whether somebody may do something, and why.

    Args:
        principal: Who.
        policy: The policy.
        bindings: All bindings with their places: the policy's and the database's.
        teams: Teams of users that the principal is in.
        cell: What, for example `dag.run:POST`.
        kind: Kind of the named resource; that of the cell where it is None.
        name: Id of the resource, or None for the question that Airflow asks for a list, or for all of them.
        team: The team that the resource belongs to.
        facts: Tags and bundle of a Dag.

    Raises:
        InvalidValueError: The cell is not known, or it is not about such a resource.
    """
    if cell not in CELLS:
        raise InvalidValueError(f"cell {cell!r}: expected one that 'airflow tradewind-auth matrix' lists")
    own = kind_of(cell)
    if kind is not None and kind != own:
        raise InvalidValueError(f"cell {cell!r} is not about a {kind}")
    question = _Question(cell, own, name or None, team, facts)
    bindings = list(bindings)
    grants = grants_of(principal, policy.file, policy.masks, bindings, teams)
    denies = denies_of(principal, policy.file.deny, teams)
    refused = [*_scope_reasons(principal, question), *_deny_reasons(policy, denies, question)]
    granted = _grant_reasons(grants, _takes(principal, denies), question)
    if granted and not refused:
        return Explanation(True, tuple(granted))
    near = [reason for grant in grants if (reason := _limit(grant, question)) is not None] if not granted else []
    near += [] if granted else _elsewhere(principal, policy, bindings, teams, question)
    needed = [] if granted else [_needed(policy, question)]
    return Explanation(False, (*refused, *granted, *near, *needed))


def _takes(principal: Principal, denies: Sequence[Deny]) -> frozenset[str]:
    """Cells that are out of reach on whatever resource."""
    taken = {cell for deny in denies if deny.dags is None for pattern in deny.cells for cell in expand(pattern)}
    if principal.scopes is not None:
        kept = {cell for pattern in principal.scopes for cell in expand(pattern)}
        taken |= set(CELLS) - kept
    return frozenset(taken)


def _scope_reasons(principal: Principal, question: _Question) -> list[Reason]:
    if principal.scopes is None or any(question.cell in expand(pattern) for pattern in principal.scopes):
        return []
    scopes = ", ".join(sorted(principal.scopes)) or "nothing"
    return [_reason("the API token", None, "", "denies", f"the token is limited to {scopes}")]


def _deny_reasons(policy: Policy, denies: Sequence[Deny], question: _Question) -> list[Reason]:
    reasons = []
    for deny in denies:
        if not any(question.cell in expand(pattern) for pattern in deny.cells):
            continue
        where = policy.place("deny", policy.file.deny.index(deny))
        if deny.dags is None:
            reasons.append(_reason(where, deny.subject, "", "denies", f"takes {question.cell} everywhere"))
        elif question.kind != "dag":
            continue
        elif question.name is not None:
            if _selects(deny.dags, question):
                reasons.append(
                    _reason(where, deny.subject, "", "denies", f"takes {question.cell} on {_text(deny.dags)}")
                )
        elif not question.reads:
            detail = f"takes {question.cell} on {_text(deny.dags)}, so it can't be had for all Dags at once"
            reasons.append(_reason(where, deny.subject, "", "denies", detail))
        elif not any(_READ_DAG in expand(pattern) for pattern in deny.cells):
            detail = f"takes {question.cell} on {_text(deny.dags)}, which the list of all Dags would show"
            reasons.append(_reason(where, deny.subject, "", "denies", detail))
    return reasons


def _grant_reasons(grants: Sequence[Grant], taken: frozenset[str], question: _Question) -> list[Reason]:
    found = [grant for grant in grants if _covers(grant, question)]
    reasons = [
        _reason(grant.source, grant.subject, grant.role, "grants", f"{question.cell} {_where(grant, question)}")
        for grant in found
    ]
    if question.kind != "dag" or question.name is not None or not question.reads or found:
        return reasons
    # A list of Dags: granted for each Dag that the list shows, though not for all there are.
    if _READ_DAG in taken or any(_everywhere(grant, _READ_DAG) for grant in grants):
        return []
    showing = [grant for grant in grants if _READ_DAG in _cells(grant)]
    if showing and all(question.cell in _cells(grant) for grant in showing):
        return [
            _reason(grant.source, grant.subject, grant.role, "grants", f"{question.cell} {_where(grant, question)}")
            for grant in showing
        ]
    return []


def _cells(grant: Grant) -> frozenset[str]:
    return frozenset(names_of(grant.mask))


def _everywhere(grant: Grant, cell: str) -> bool:
    if cell not in _cells(grant):
        return False
    kind = kind_of(cell)
    if kind is None or (kind == "team" and grant.team is None):
        return True
    return grant.team is None and _selector(grant, kind) is None


def _covers(grant: Grant, question: _Question) -> bool:
    kind = question.kind
    if question.cell not in _cells(grant):
        return False
    if kind is None or _everywhere(grant, question.cell):
        return True
    if kind == "team":
        return question.name is not None and question.name == grant.team
    if question.name is not None:
        selector = _selector(grant, kind)
        return selector is not None and _selects(selector, question)
    return kind != "dag" and (question.reads if question.team is None else grant.team == question.team)


def _selector(grant: Grant, kind: Kind) -> DagSelector | ResourceSelector | None:
    if kind == "dag":
        return grant.dags or (DagSelector(teams=(grant.team,)) if grant.team is not None else None)
    if kind == "team":
        return None
    return grant.resources.get(f"{kind}s") or (
        ResourceSelector(teams=(grant.team,)) if grant.team is not None else None
    )


def _selects(selector: DagSelector | ResourceSelector, question: _Question) -> bool:
    name = question.name or ""
    if any(fnmatchcase(name, pattern) for pattern in selector.ids):
        return True
    if question.team is not None and question.team in selector.teams:
        return True
    if not isinstance(selector, DagSelector):
        return False
    return not question.facts.tags.isdisjoint(selector.tags) or question.facts.bundle in selector.bundles


def _limit(grant: Grant, question: _Question) -> Reason | None:
    if question.cell not in _cells(grant):
        return None
    return _reason(
        grant.source, grant.subject, grant.role, "limits", f"grants {question.cell} only {_where(grant, question)}"
    )


def _elsewhere(
    principal: Principal,
    policy: Policy,
    bindings: Iterable[tuple[str, Binding]],
    teams: frozenset[str],
    question: _Question,
) -> list[Reason]:
    held = subjects_of(principal, teams)
    return [
        _reason(source, binding.subject, binding.role, "limits", f"is for {binding.scope}, not for this deployment")
        for source, binding in bindings
        if binding.subject in held
        and not applies_here(binding.scope, policy.file)
        and question.cell in names_of(policy.masks.get(binding.role, 0))
    ]


def _needed(policy: Policy, question: _Question) -> Reason:
    roles = sorted(role for role, mask in policy.masks.items() if question.cell in names_of(mask))
    detail = f"one of the roles {', '.join(roles)}" if roles else "a role that grants it; none does"
    return _reason(policy.source or "built-in policy", None, "", "needs", f"{question.what} needs {detail}")


def _where(grant: Grant, question: _Question) -> str:
    if question.kind == "team" and grant.team is not None:
        return f"for team {grant.team!r}"
    selector = None if question.kind is None else _selector(grant, question.kind)
    if selector is None:
        return "everywhere in this deployment"
    return f"on {_text(selector)}"


def _text(selector: DagSelector | ResourceSelector) -> str:
    given = {key: value for key, value in selector.model_dump().items() if value}
    return " or ".join(f"{key} {', '.join(names)}" for key, names in given.items())


def _reason(source: str, subject: tuple[str, str] | None, role: str, effect: Effect, detail: str) -> Reason:
    return Reason(source, ":".join(subject) if subject else "", role, effect, detail)
