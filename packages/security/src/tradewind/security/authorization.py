# SPDX-License-Identifier: Apache-2.0
"""From a principal to what it may do now: the newest policy, the newest bindings, compiled once for each."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.common.types import MenuItem

from tradewind.security.policy.cells import BITS
from tradewind.security.policy.compiler import Compiled, compile_principal

if TYPE_CHECKING:
    from collections.abc import Hashable

    from tradewind.security.policy.loader import Policy, PolicyLoader
    from tradewind.security.policy.schema import Binding
    from tradewind.security.principal import Principal
    from tradewind.security.store.directory import Directory, Snapshot

__all__ = ["DAG_BITS", "MENU_BITS", "VIEW_BITS", "Rulebook", "bindings_of", "bits", "teams_of"]

METHODS = ("GET", "POST", "PUT", "DELETE")
FRESH_SECONDS = 0.05
MOST_PRINCIPALS = 20_000


def bits(resource: str) -> dict[str, int]:
    """Give the bits of a resource's cells by method; a method that is unknown has none."""
    return {method: BITS.get(f"{resource}:{method}", 0) for method in METHODS}


DAG_BITS: dict[str | None, dict[str, int]] = {
    None: bits("dag"),
    **{entity.value: bits(f"dag.{entity.name.lower()}") for entity in DagAccessEntity},
}
"""Bits of Dag cells by the entity's value; made from Airflow's enumeration, what we don't know has bit 0: denied."""

VIEW_BITS: dict[AccessView, int] = {view: BITS.get(f"view.{view.name.lower()}:GET", 0) for view in AccessView}
"""Bits of views, likewise."""

MENU_BITS: dict[MenuItem, int] = {item: BITS.get(f"menu.{item.name.lower()}:MENU", 0) for item in MenuItem}
"""Bits of menu items, likewise."""


def bindings_of(policy: Policy, snapshot: Snapshot) -> tuple[tuple[str, Binding], ...]:
    """Give all bindings, each with its place: those of the file and those of the database."""
    stored = zip(snapshot.binding_ids, snapshot.bindings, strict=True)
    return (*policy.bindings, *((f"binding {number} of the database", binding) for number, binding in stored))


def teams_of(principal: Principal, policy: Policy, snapshot: Snapshot) -> frozenset[str]:
    """Give the teams that a principal is in: by the database, and by its groups of an issuer."""
    if principal.kind != "user":
        return frozenset()
    teams = set(snapshot.teams.get(principal.id, ()))
    for issuer in policy.file.issuers:
        teams.update(team for group, team in issuer.teams.items() if f"{issuer.name}:{group}" in principal.groups)
    return frozenset(teams)


class Rulebook:
    """Compiled rules of every principal that asked lately.

    Args:
        policies: Gives the policy.
        directory: Gives the database's bindings and teams.
    """

    def __init__(self, policies: PolicyLoader, directory: Directory) -> None:
        self._policies = policies
        self._directory = directory
        self._fresh_until = float("-inf")
        self._generation: tuple[object, object] = (None, None)
        self._compiled: dict[Hashable, Compiled] = {}
        self._lock = threading.Lock()

    def of(self, principal: Principal) -> Compiled:
        """Give what a principal may do.

        Args:
            principal: Who.

        Raises:
            StoreUnavailableError: The database's bindings are too old to be trusted, and it does not answer.
        """
        if time.monotonic() >= self._fresh_until:
            self._renew()
        compiled = self._compiled
        # One request asks many questions about the same object: hashing its key would cost more than the answer.
        kept: tuple[object, Compiled] | None = principal.__dict__.get("_rules")
        if kept is not None and kept[0] is compiled:
            return kept[1]
        key = (principal.id, principal.kind, principal.groups, principal.roles, principal.scopes)
        found = compiled.get(key)
        if found is None:
            found = self._compile(principal)
            if len(compiled) >= MOST_PRINCIPALS:
                compiled.clear()
            compiled[key] = found
        principal.__dict__["_rules"] = (compiled, found)
        return found

    def _renew(self) -> None:
        policy, snapshot = self._policies.current(), self._directory.snapshot()
        with self._lock:
            if self._generation[0] is not policy or self._generation[1] is not snapshot:
                self._generation = (policy, snapshot)
                self._compiled = {}
            self._fresh_until = time.monotonic() + FRESH_SECONDS

    def _compile(self, principal: Principal) -> Compiled:
        policy, snapshot = self._policies.current(), self._directory.snapshot()
        return compile_principal(
            principal,
            policy.file,
            policy.masks,
            bindings_of(policy, snapshot),
            teams_of(principal, policy, snapshot),
        )
