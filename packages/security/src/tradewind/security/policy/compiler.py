# SPDX-License-Identifier: Apache-2.0
"""What one principal may do: the policy and the dynamic bindings, compiled to bit masks.

Union of grants first, then denies. Four places hold masks: everywhere (`base`), one team's resources,
Dags that a selector matches, and connections, variables or pools that one matches. A question about one
resource unites the places that hold it. A question without an id is answered for the list as a whole:
reading is allowed when the row filters that Airflow applies afterwards can't show more than what is
granted, writing only with a grant that holds everywhere.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from fnmatch import translate
from typing import TYPE_CHECKING

from tradewind.security.exceptions import PolicyError
from tradewind.security.policy.cells import BITS, DAG_CELLS, TEAM_CELLS, expand, mask_of
from tradewind.security.policy.schema import DagSelector, ResourceSelector, applies_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Set

    from tradewind.security.policy.schema import Binding, Deny, PolicyFile, Role
    from tradewind.security.principal import Principal

__all__ = ["RESOURCES", "Compiled", "DagFacts", "Grant", "Rules", "compile_principal", "grants_of", "resolve_roles"]

RESOURCES = {
    "connections": mask_of(["connection:*"]),
    "variables": mask_of(["variable:*"]),
    "pools": mask_of(["pool:*"]),
}
"""The cells that each of a binding's resource selectors limits."""

_READ_DAG = BITS["dag:GET"]
MEMO_MOST = 50_000
_NO_MASKS: dict[str, int] = {}


@dataclass(frozen=True)
class DagFacts:
    """What selectors ask of a Dag.

    Args:
        tags: Its tags.
        bundle: Name of its bundle.
        team: The team that the bundle belongs to.
    """

    tags: frozenset[str] = frozenset()
    bundle: str | None = None
    team: str | None = None


NO_FACTS = DagFacts()


@dataclass(frozen=True)
class Grant:
    """One binding that applies to a principal here.

    Args:
        source: Where it is written, for people.
        subject: Kind and name of the binding's subject.
        role: The role's name.
        mask: The role's cells.
        team: The team that it is limited to, from its scope.
        dags: The Dags that its Dag cells are limited to.
        resources: Selectors by `connections`, `variables`, `pools`.
    """

    source: str
    subject: tuple[str, str]
    role: str
    mask: int
    team: str | None = None
    dags: DagSelector | None = None
    resources: Mapping[str, ResourceSelector] = field(default_factory=dict)


def resolve_roles(roles: Mapping[str, Role]) -> dict[str, int]:
    """Give the cells of every role, those that it extends included.

    Args:
        roles: All roles by name.

    Raises:
        PolicyError: A role extends an unknown one, or itself.
    """
    masks: dict[str, int] = {}

    def resolve(name: str, path: tuple[str, ...]) -> int:
        if name in masks:
            return masks[name]
        if name in path:
            raise PolicyError(f"roles.{name}.extends: {' -> '.join((*path, name))} is a circle")
        role = roles[name]
        mask = mask_of(role.allow)
        for parent in role.extends:
            if parent not in roles:
                raise PolicyError(f"roles.{name}.extends: unknown role {parent!r}; known: {', '.join(sorted(roles))}")
            mask |= resolve(parent, (*path, name))
        masks[name] = mask
        return mask

    for name in roles:
        resolve(name, ())
    return masks


class _Matcher:
    """Names and patterns."""

    __slots__ = ("exact", "patterns", "search")

    def __init__(self, ids: Iterable[str]) -> None:
        ids = list(ids)
        self.exact = frozenset(one for one in ids if "*" not in one and "?" not in one)
        self.patterns = tuple(sorted({one for one in ids if one not in self.exact}))
        self.search: Callable[[str], object] | None = (
            re.compile("|".join(translate(pattern) for pattern in self.patterns)).match if self.patterns else None
        )

    def __contains__(self, name: str) -> bool:
        return name in self.exact or (self.search is not None and self.search(name) is not None)


class Rules:
    """Masks that hold for some resources of a kind.

    Args:
        selected: Selectors with their masks.

    Selectors with the same mask are one rule; there are as many rules as different masks.
    """

    def __init__(self, selected: Iterable[tuple[DagSelector | ResourceSelector, int]]) -> None:
        ids: dict[int, list[str]] = defaultdict(list)
        self.tags: dict[str, int] = defaultdict(int)
        self.bundles: dict[str, int] = defaultdict(int)
        self.teams: dict[str, int] = defaultdict(int)
        self.masks: list[int] = []
        for selector, mask in selected:
            if not mask:
                continue
            self.masks.append(mask)
            ids[mask].extend(selector.ids)
            for team in selector.teams:
                self.teams[team] |= mask
            if isinstance(selector, DagSelector):
                for tag in selector.tags:
                    self.tags[tag] |= mask
                for bundle in selector.bundles:
                    self.bundles[bundle] |= mask
        self.ids = [(mask, _Matcher(names)) for mask, names in ids.items() if names]
        self.needs_facts = bool(self.tags or self.bundles)
        self.any = 0
        for mask in self.masks:
            self.any |= mask

    def of(self, name: str, team: str | None, facts: DagFacts = NO_FACTS) -> int:
        """Give the mask of one resource.

        Args:
            name: Its id.
            team: Its team.
            facts: A Dag's facts.
        """
        mask = 0
        for granted, matcher in self.ids:
            if name in matcher:
                mask |= granted
        if self.teams and team is not None:
            mask |= self.teams.get(team, 0)
        if self.tags:
            for tag in facts.tags:
                mask |= self.tags.get(tag, 0)
        if self.bundles and facts.bundle is not None:
            mask |= self.bundles.get(facts.bundle, 0)
        return mask


class Compiled:
    """What one principal may do.

    Args:
        grants: Bindings that apply.
        denies: Denies that apply, with their cells.
        scopes: Cells of the API token, or None.
    """

    def __init__(
        self, grants: Iterable[Grant], denies: Iterable[tuple[int, DagSelector | None]], scopes: int | None
    ) -> None:
        limit = -1 if scopes is None else scopes
        everywhere_denied = 0
        denied_dags: list[tuple[DagSelector, int]] = []
        for mask, dags in denies:
            if dags is None:
                everywhere_denied |= mask
            else:
                denied_dags.append((dags, mask & DAG_CELLS))
        limit &= ~everywhere_denied
        base = 0
        selected: dict[str, list[tuple[DagSelector | ResourceSelector, int]]] = {"dags": []}
        selected |= {kind: [] for kind in RESOURCES}
        for grant in grants:
            mask = grant.mask & limit
            if grant.dags is not None:
                selected["dags"].append((grant.dags, mask & DAG_CELLS))
                mask &= ~DAG_CELLS
            for kind, selector in grant.resources.items():
                selected[kind].append((selector, mask & RESOURCES[kind]))
                mask &= ~RESOURCES[kind]
            if grant.team is not None:
                for kind, cells in (("dags", DAG_CELLS), *RESOURCES.items()):
                    shape = DagSelector if kind == "dags" else ResourceSelector
                    selected[kind].append((shape(teams=(grant.team,)), mask & cells))
            base |= mask & ~TEAM_CELLS if grant.team is not None else mask
        self.base = base
        self.team_cells: dict[str, int] = defaultdict(int)
        for grant in grants:
            if grant.team is not None:
                self.team_cells[grant.team] |= grant.mask & limit & TEAM_CELLS
        self.dags = Rules(selected["dags"])
        self.denied_dags = Rules(denied_dags)
        self.resources = {kind: Rules(selected[kind]) for kind in RESOURCES}
        self.needs_facts = self.dags.needs_facts or self.denied_dags.needs_facts
        self.without_id = self._without_id()
        self.is_uniform = not (self.dags.masks or self.denied_dags.masks)
        self._lock = threading.Lock()
        self._memo: tuple[object, dict[str | None, dict[str, int]]] = (None, {})

    def dag(
        self,
        dag_id: str,
        team: str | None,
        facts: Callable[[str], DagFacts | None] | None = None,
        version: object = None,
    ) -> int:
        """Give the mask of one Dag.

        Args:
            dag_id: Its id.
            team: Its team.
            facts: Gives a Dag's facts, or None for an unknown one; needed where `needs_facts` says so.
            version: Another object when facts change.
        """
        known_version, memo = self._memo
        if version is known_version:
            mask = memo.get(team, _NO_MASKS).get(dag_id)
            if mask is not None:
                return mask
        return self._remember((dag_id,), team, facts, version)[dag_id]

    def dags_with(
        self,
        cell: int,
        dag_ids: Set[str],
        team: str | None,
        facts: Callable[[str], DagFacts | None] | None = None,
        version: object = None,
    ) -> set[str]:
        """Give those of many Dags of one team that a cell is granted for; arguments as of `dag`."""
        known_version, memo = self._memo
        masks = memo.get(team, _NO_MASKS) if version is known_version else _NO_MASKS
        if not dag_ids <= masks.keys():
            masks = self._remember(dag_ids, team, facts, version)
        return {dag_id for dag_id in dag_ids if masks[dag_id] & cell}

    def _remember(
        self,
        dag_ids: Iterable[str],
        team: str | None,
        facts: Callable[[str], DagFacts | None] | None,
        version: object,
    ) -> dict[str, int]:
        with self._lock:
            known_version, memo = self._memo
            if version is not known_version or sum(map(len, memo.values())) > MEMO_MOST:
                memo = {}
                self._memo = (version, memo)
            masks = memo.setdefault(team, {})
            for dag_id in dag_ids:
                if dag_id not in masks:
                    known = (facts(dag_id) if facts else None) or NO_FACTS
                    granted = self.base | self.dags.of(dag_id, team, known)
                    masks[dag_id] = granted & ~self.denied_dags.of(dag_id, team, known)
            return masks

    def resource(self, kind: str, name: str, team: str | None) -> int:
        """Give the mask of one connection, variable or pool."""
        return self.base | self.resources[kind].of(name, team)

    def any_resource(self, kind: str) -> int:
        """Give the cells that are granted for some resource of a kind."""
        return self.base | self.resources[kind].any

    def _without_id(self) -> int:
        # Airflow filters rows by `dag:GET` alone. So a list of, say, XComs shows those of every Dag that may be
        # read: it is only for people who hold the cell on each of these Dags.
        readable = [mask for mask in self.dags.masks if mask & _READ_DAG]
        listed = self.base
        if not self.base & _READ_DAG and readable:
            common = readable[0]
            for mask in readable[1:]:
                common &= mask
            listed |= common
        for denied in self.denied_dags.masks:
            if not denied & _READ_DAG:
                listed &= ~denied
        return listed

    @property
    def written_everywhere(self) -> int:
        """Cells that may be written without an id."""
        return self.base & ~self.denied_dags.any


def grants_of(
    principal: Principal,
    policy: PolicyFile,
    roles: Mapping[str, int],
    bindings: Iterable[tuple[str, Binding]],
    teams: frozenset[str],
) -> list[Grant]:
    """Give the bindings that apply to a principal at this deployment.

    Args:
        principal: Who.
        policy: The policy.
        roles: Cells of every role.
        bindings: All bindings, each with its place.
        teams: Teams of users that the principal is in.

    Bindings of roles that don't exist grant nothing: a dynamic binding can outlive its role.
    """
    held = subjects_of(principal, teams)
    grants = [
        Grant(
            source=source,
            subject=binding.subject,
            role=binding.role,
            mask=roles[binding.role],
            team=binding.scope.partition("/")[2] if binding.scope.startswith("team/") else None,
            dags=binding.dags,
            resources={kind: chosen for kind in RESOURCES if (chosen := getattr(binding, kind)) is not None},
        )
        for source, binding in bindings
        if binding.subject in held
        and binding.role in roles
        and applies_here(binding.scope, policy)
        # Both limits at once are refused where bindings are made; one that is there nevertheless grants nothing.
        and not (binding.scope.startswith("team/") and _is_limited(binding))
    ]
    grants.extend(
        Grant(source=f"issuer of {principal.id}", subject=("service", principal.id), role=role, mask=roles[role])
        for role in sorted(principal.roles)
        if role in roles
    )
    return grants


def _is_limited(binding: Binding) -> bool:
    return any(getattr(binding, kind) is not None for kind in ("dags", *RESOURCES))


def subjects_of(principal: Principal, teams: frozenset[str]) -> frozenset[tuple[str, str]]:
    """Give every subject that a principal is: itself, its groups and its teams."""
    own = "user" if principal.kind == "user" else "service"
    return frozenset({(own, principal.id), *(("group", g) for g in principal.groups), *(("team", t) for t in teams)})


def denies_of(principal: Principal, denies: Iterable[Deny], teams: frozenset[str]) -> list[Deny]:
    """Give the denies that apply to a principal."""
    held = subjects_of(principal, teams)
    return [deny for deny in denies if deny.subject in held]


def compile_principal(
    principal: Principal,
    policy: PolicyFile,
    roles: Mapping[str, int],
    bindings: Iterable[tuple[str, Binding]],
    teams: frozenset[str],
) -> Compiled:
    """Compile what a principal may do; arguments as of `grants_of`."""
    scopes = None
    if principal.scopes is not None:
        scopes = 0
        for scope in principal.scopes:
            for cell in expand(scope):
                scopes |= BITS[cell]
    return Compiled(
        grants_of(principal, policy, roles, bindings, teams),
        [(mask_of(deny.cells), deny.dags) for deny in denies_of(principal, policy.deny, teams)],
        scopes,
    )
