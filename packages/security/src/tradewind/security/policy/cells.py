# SPDX-License-Identifier: Apache-2.0
"""The cells: everything that can be granted, one bit each.

A cell is `<resource>:<METHOD>`, for example `dag.run:POST`. Those that Airflow asks for are its own
enumerations; a member that this version of tradewind.security does not know has no bit, and no bit is
never granted. Grants may use `*` on either side (`connection:*`, `dag.*:GET`); `tw.org.get` is short for
`tw.org.get:*`.
"""

from __future__ import annotations

import re
from fnmatch import translate
from functools import cache
from typing import TYPE_CHECKING

from tradewind.security.exceptions import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BITS", "CELLS", "DAG_CELLS", "TEAM_CELLS", "expand", "mask_of", "names_of"]

_METHODS = ("GET", "POST", "PUT", "DELETE")
_ENTITIES = (
    "audit_log",
    "code",
    "dependencies",
    "hitl_detail",
    "run",
    "task",
    "task_instance",
    "task_logs",
    "version",
    "warning",
    "xcom",
)
_VIEWS = ("cluster_activity", "docs", "import_errors", "jobs", "plugins", "providers", "triggers", "website")
_MENU_ITEMS = (
    "required_actions",
    "assets",
    "audit_log",
    "config",
    "connections",
    "dags",
    "deadlines",
    "docs",
    "jobs",
    "plugins",
    "pools",
    "providers",
    "variables",
    "xcoms",
)
_OURS = (
    "tw.org.get",
    "tw.org.members.manage",
    "tw.org.billing.manage",
    "tw.workspace.get",
    "tw.workspace.create",
    "tw.workspace.members.manage",
    "tw.deployment.get",
    "tw.deployment.update",
    "tw.role.manage",
    "tw.role.assign",
    "tw.team.manage",
    "tw.token.org.manage",
    "tw.token.workspace.manage",
    "tw.token.deployment.manage",
    "tw.token.self.manage",
    "tw.audit.read",
    "tw.policy.read",
    "tw.policy.reload",
)


def _all() -> tuple[str, ...]:
    crud = [
        "dag",
        *(f"dag.{entity}" for entity in _ENTITIES),
        "connection",
        "variable",
        "pool",
        "asset",
        "asset_alias",
        "configuration",
        "team",
    ]
    return (
        *(f"{resource}:{method}" for resource in crud for method in _METHODS),
        *(f"view.{view}:GET" for view in _VIEWS),
        *(f"menu.{item}:MENU" for item in _MENU_ITEMS),
        *(f"custom_view:{method}" for method in _METHODS),
        "hitl.assigned_override:PUT",
        *(f"{cell}:*" for cell in _OURS),
    )


CELLS: tuple[str, ...] = _all()
"""Every cell, in the order of its bit."""

BITS: dict[str, int] = {cell: 1 << index for index, cell in enumerate(CELLS)}
"""The bit of each cell."""

_PATTERN = re.compile(r"[a-z_.*]+(:[A-Z*]+)?")


@cache
def expand(pattern: str) -> frozenset[str]:
    """Give the cells that a grant names.

    Args:
        pattern: A cell, or one with `*`.

    Raises:
        PolicyError: It names no cell.

    >>> sorted(expand("pool:*"))
    ['pool:DELETE', 'pool:GET', 'pool:POST', 'pool:PUT']
    >>> expand("tw.audit.read")
    frozenset({'tw.audit.read:*'})
    """
    if not _PATTERN.fullmatch(pattern):
        raise PolicyError(
            f"cell {pattern!r}: expected <resource>:<METHOD>, for example 'dag.run:POST' or 'connection:*'"
        )
    resource, _, method = pattern.partition(":")
    matches = re.compile(translate(f"{resource}:{method or '*'}")).match
    found = frozenset(cell for cell in CELLS if matches(cell))
    if not found:
        import difflib

        near = difflib.get_close_matches(pattern, CELLS, n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise PolicyError(f"cell {pattern!r} is unknown{hint} ('airflow tradewind-auth matrix' lists all)")
    return found


def mask_of(patterns: Iterable[str]) -> int:
    """Give the bits of several grants.

    Args:
        patterns: Cells or patterns.

    Raises:
        PolicyError: One names no cell.
    """
    mask = 0
    for pattern in patterns:
        for cell in expand(pattern):
            mask |= BITS[cell]
    return mask


def names_of(mask: int) -> list[str]:
    """Give the cells of a mask, in order.

    >>> names_of(mask_of(["dag.run:POST", "dag:GET"]))
    ['dag:GET', 'dag.run:POST']
    """
    return [cell for cell, bit in BITS.items() if mask & bit]


DAG_CELLS: int = mask_of(["dag:*", "dag.*:*"])
"""Cells that are about one Dag."""

TEAM_CELLS: int = DAG_CELLS | mask_of(["connection:*", "variable:*", "pool:*", "team:*"])
"""Cells whose resources belong to teams where `[core] multi_team` is on."""
