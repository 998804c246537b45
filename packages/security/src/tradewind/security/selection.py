# SPDX-License-Identifier: Apache-2.0
"""Selectors as SQL: which Dags, connections, variables and pools the rules of one principal mean."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from airflow.models.connection import Connection
from airflow.models.dag import DagModel, DagTag
from airflow.models.pool import Pool
from airflow.models.team import dag_bundle_team_association_table
from airflow.models.variable import Variable
from sqlalchemy import false, not_, select, true

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Select
    from sqlalchemy.orm import InstrumentedAttribute
    from sqlalchemy.sql.elements import ColumnElement

    from tradewind.security.policy.compiler import Compiled, Rules

__all__ = ["COLUMNS", "dags_where", "resources_where"]

COLUMNS: dict[str, tuple[InstrumentedAttribute[Any], InstrumentedAttribute[Any]]] = {
    "connections": (Connection.conn_id, Connection.team_name),
    "variables": (Variable.key, Variable.team_name),
    "pools": (Pool.pool, Pool.team_name),
}
"""Id and team of each kind of resource."""


def dags_where(rules: Compiled, cell: int, dialect: str) -> Select[tuple[str]]:
    """Select the ids of the Dags that a cell is granted for.

    Args:
        rules: What a principal may do.
        cell: The cell's bit.
        dialect: SQLAlchemy's name of the database.
    """
    query: Select[tuple[str]] = select(DagModel.dag_id)
    if not rules.base & cell:
        query = query.where(_any(_dags(rules.dags, cell, dialect)))
    if outside := _dags(rules.denied_dags, cell, dialect):
        query = query.where(not_(_any(outside)))
    return query


def _dags(rules: Rules, cell: int, dialect: str) -> list[ColumnElement[bool]]:
    conditions = _ids(rules, cell, DagModel.dag_id, dialect)
    if teams := _names(rules.teams, cell):
        bundles = select(dag_bundle_team_association_table.c.dag_bundle_name).where(
            dag_bundle_team_association_table.c.team_name.in_(teams)
        )
        conditions.append(DagModel.bundle_name.in_(bundles))
    if tags := _names(rules.tags, cell):
        conditions.append(DagModel.dag_id.in_(select(DagTag.dag_id).where(DagTag.name.in_(tags))))
    if bundles_named := _names(rules.bundles, cell):
        conditions.append(DagModel.bundle_name.in_(bundles_named))
    return conditions


def resources_where(rules: Compiled, kind: str, cell: int, dialect: str) -> Select[tuple[str]]:
    """Select the ids of the connections, variables or pools that a cell is granted for.

    Args:
        rules: What a principal may do.
        kind: `connections`, `variables` or `pools`.
        cell: The cell's bit.
        dialect: SQLAlchemy's name of the database.
    """
    column, team = COLUMNS[kind]
    query: Select[tuple[str]] = select(column)
    if rules.base & cell:
        return query
    conditions = _ids(rules.resources[kind], cell, column, dialect)
    if teams := _names(rules.resources[kind].teams, cell):
        conditions.append(team.in_(teams))
    return query.where(_any(conditions))


def _ids(rules: Rules, cell: int, column: InstrumentedAttribute[Any], dialect: str) -> list[ColumnElement[bool]]:
    exact: set[str] = set()
    patterns: set[str] = set()
    for mask, matcher in rules.ids:
        if mask & cell:
            exact |= matcher.exact
            patterns.update(matcher.patterns)
    conditions: list[ColumnElement[bool]] = [column.in_(sorted(exact))] if exact else []
    conditions += [_matches(column, pattern, dialect) for pattern in sorted(patterns)]
    return conditions


def _matches(column: InstrumentedAttribute[Any], pattern: str, dialect: str) -> ColumnElement[bool]:
    if pattern == "*":
        return true()
    if dialect == "sqlite":
        # Its LIKE ignores the case of letters.
        return column.op("GLOB", is_comparison=True)(pattern)
    text = pattern.replace("!", "!!").replace("%", "!%").replace("_", "!_").replace("*", "%").replace("?", "_")
    return column.like(text, escape="!")


def _names(masks: dict[str, int], cell: int) -> list[str]:
    return sorted(name for name, mask in masks.items() if mask & cell)


def _any(conditions: Iterable[ColumnElement[bool]]) -> ColumnElement[bool]:
    return reduce(or_, conditions, false())
