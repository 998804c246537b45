# SPDX-License-Identifier: Apache-2.0
"""Nobody gives what he does not hold: what is at stake in a binding, a user, a team, against who hands it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import HTTPException, status

from tradewind.security.authorization import bindings_of
from tradewind.security.policy.cells import TEAM_CELLS, mask_of, names_of
from tradewind.security.policy.compiler import compile_principal
from tradewind.security.principal import Principal
from tradewind.security.refusals import refuse

if TYPE_CHECKING:
    from collections.abc import Collection

    from tradewind.security.auth_manager import TradewindAuthManager
    from tradewind.security.policy.compiler import Compiled
    from tradewind.security.policy.schema import Binding

__all__ = [
    "refuse_to_give",
    "stake_of_binding",
    "stake_of_principal",
    "stake_of_scopes",
    "stake_of_team",
]

_SHOWN = 5


def stake_of_principal(manager: TradewindAuthManager, principal: Principal) -> int:
    """Give all cells that somebody holds, be it for one Dag only.

    Args:
        manager: Knows the rules.
        principal: Who.
    """
    return _all_cells(manager.rules.of(principal))


def stake_of_team(manager: TradewindAuthManager, team: str) -> int:
    """Give the cells that membership of a team decides about: those that it is given, and those denied to it.

    Args:
        manager: Knows the rules.
        team: Name of a team of users.
    """
    policy, snapshot = manager.policies.current(), manager.directory.snapshot()
    nobody = Principal("")
    granted = compile_principal(nobody, policy.file, policy.masks, bindings_of(policy, snapshot), frozenset({team}))
    mask = _all_cells(granted)
    for deny in policy.file.deny:
        if deny.subject == ("team", team):
            mask |= mask_of(deny.cells)
    return mask


def stake_of_binding(manager: TradewindAuthManager, binding: Binding) -> int:
    """Give the cells of a binding's role; all there are where the role is unknown.

    Args:
        manager: Knows the roles.
        binding: The binding.
    """
    return manager.policies.current().masks.get(binding.role, -1)


def stake_of_scopes(scopes: Collection[str] | None) -> int:
    """Give the cells of a token's scopes; all there are without scopes.

    Args:
        scopes: Cells or patterns.

    Raises:
        PolicyError: One names no cell.
    """
    return -1 if scopes is None else mask_of(scopes)


def refuse_to_give(
    manager: TradewindAuthManager, giver: Principal, stake: int, *, team: str | None = None, what: str
) -> None:
    """Refuse somebody who hands out, or takes away, what he does not hold at the whole deployment.

    Args:
        manager: Knows the rules.
        giver: Who hands it out.
        stake: The cells.
        team: The team of `[core] multi_team` that they are limited to.
        what: What it is about, for the audit log.

    Raises:
        HTTPException: 403.
    """
    rules = manager.rules.of(giver)
    held = rules.written_everywhere
    owner = manager.policies.current().masks["org_owner"]
    if not owner & ~held:
        # Custom roles may name cells that even an owner's role does not.
        return
    if team is not None:
        held |= rules.team_cells.get(team, 0) & TEAM_CELLS & ~rules.denied_dags.any
    missing = names_of(stake & ~held)
    if missing:
        refuse(missing[0], what)
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise HTTPException(
            status.HTTP_403_FORBIDDEN, f"You can't give what you lack: {', '.join(missing[:_SHOWN])}{more}"
        )


def _all_cells(rules: Compiled) -> int:
    mask = rules.base | rules.dags.any
    for limited in rules.resources.values():
        mask |= limited.any
    for cells in rules.team_cells.values():
        mask |= cells
    return mask
