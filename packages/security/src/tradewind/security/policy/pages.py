# SPDX-License-Identifier: Apache-2.0
"""What the pages of Airflow 3.3's UI ask for, and what nothing of it asks for."""

from __future__ import annotations

from tradewind.security.policy.cells import expand

__all__ = ["PAGES", "UNASKED"]

PAGES: dict[str, tuple[str, frozenset[str]]] = {
    "Dags": (
        "menu.dags:MENU",
        frozenset({"dag:GET", "dag.run:GET", "dag.hitl_detail:GET", "dag.task_instance:GET"}),
    ),
    "Grid": ("menu.dags:MENU", frozenset({"dag:GET", "dag.run:GET", "dag.task_instance:GET"})),
    "Graph": ("menu.dags:MENU", frozenset({"dag:GET", "dag.dependencies:GET", "dag.task_instance:GET"})),
    "Assets": ("menu.assets:MENU", frozenset({"asset:GET", "asset_alias:GET"})),
    "Audit Log": ("menu.audit_log:MENU", frozenset({"dag.audit_log:GET"})),
    "Config": ("menu.config:MENU", frozenset({"configuration:GET"})),
    "Connections": ("menu.connections:MENU", frozenset({"connection:GET"})),
    "Deadlines": ("menu.deadlines:MENU", frozenset({"dag.run:GET"})),
    "Jobs": ("menu.jobs:MENU", frozenset({"view.jobs:GET"})),
    "Plugins": ("menu.plugins:MENU", frozenset({"view.plugins:GET"})),
    "Pools": ("menu.pools:MENU", frozenset({"pool:GET"})),
    "Providers": ("menu.providers:MENU", frozenset({"view.providers:GET"})),
    "Required Actions": ("menu.required_actions:MENU", frozenset({"dag.hitl_detail:GET"})),
    "Variables": ("menu.variables:MENU", frozenset({"variable:GET"})),
    "XComs": ("menu.xcoms:MENU", frozenset({"dag.xcom:GET"})),
}
"""For each page the cell that shows it in the menu, and the cells without which it shows an error."""

_READ_ONLY = ("audit_log", "code", "dependencies", "task", "task_logs", "version", "warning")

UNASKED: frozenset[str] = frozenset(
    {
        "dag:POST",
        "dag.hitl_detail:POST",
        "dag.hitl_detail:DELETE",
        "dag.task_instance:POST",
        *(cell for entity in _READ_ONLY for cell in expand(f"dag.{entity}:*") if not cell.endswith(":GET")),
        *(cell for cell in expand("asset_alias:*") | expand("configuration:*") if not cell.endswith(":GET")),
        *(cell for cell in expand("team:*") if not cell.endswith(":GET")),
        *(f"view.{view}:GET" for view in ("cluster_activity", "docs", "triggers", "website")),
    }
)
"""Cells that no route of Airflow 3.3 asks for: whoever has them can do nothing with them today."""
