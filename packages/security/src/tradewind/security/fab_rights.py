# SPDX-License-Identifier: Apache-2.0
"""What Flask-AppBuilder's permissions mean, as cells: a translation of FabAuthManager's own rules."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["NOT_CARRIED", "Permission", "Rights", "known", "rights_of"]

Permission = tuple[str, str]
"""Action and resource, for example `("can_read", "DAG:sales")`."""

_METHODS = {"GET": "can_read", "POST": "can_create", "PUT": "can_edit", "DELETE": "can_delete"}
_WRITES = ("POST", "PUT", "DELETE")

_DAGS = "DAGs"
_DAG = "DAG:"
_RUN = "DAG Run:"

_ENTITIES = {
    "audit_log": ("Audit Logs",),
    "code": ("DAG Code",),
    "dependencies": ("DAG Dependencies",),
    "hitl_detail": ("HITL Detail",),
    "run": ("DAG Runs",),
    "task": ("Task Instances",),
    "task_instance": ("DAG Runs", "Task Instances"),
    "task_logs": ("Task Logs",),
    "version": ("DAG Versions",),
    "warning": ("DAG Warnings",),
    "xcom": ("XComs",),
}
_RESOURCES = {
    "asset": "Assets",
    "asset_alias": "Asset Aliases",
    "configuration": "Configurations",
    "connection": "Connections",
    "pool": "Pools",
    "variable": "Variables",
}
_VIEWS = {
    "cluster_activity": ("can_read", "Cluster Activity"),
    "docs": ("menu_access", "Documentation"),
    "import_errors": ("can_read", "ImportError"),
    "jobs": ("can_read", "Jobs"),
    "plugins": ("can_read", "Plugins"),
    "providers": ("can_read", "Providers"),
    "triggers": ("can_read", "Triggers"),
    "website": ("can_read", "Website"),
}
_MENUS = {
    "assets": "Assets",
    "audit_log": "Audit Logs",
    "config": "Configurations",
    "connections": "Connections",
    "dags": "DAGs",
    "deadlines": "DAG Runs",
    "docs": "Documentation",
    "jobs": "Jobs",
    "plugins": "Plugins",
    "pools": "Pools",
    "providers": "Providers",
    "required_actions": "HITL Detail",
    "variables": "Variables",
    "xcoms": "XComs",
}

NOT_CARRIED: tuple[tuple[frozenset[str], str], ...] = (
    (
        frozenset(
            {"Roles", "Users", "Permissions", "Permission Views", "View Menus", "Passwords", "List Users", "List Roles"}
        )
        | frozenset(
            {"Actions", "Resources", "Permission Pairs", "Security", "User Stats Chart", "List Groups", "Groups"}
        )
        | frozenset({"Base Permissions", "User's Statistics", "User Registrations"}),
        "administration of users and roles in Flask pages; here the cells tw.* decide (roles org_owner, ws_owner, ...)",
    ),
    (
        frozenset({"My Password", "My Profile", "Reset Password", "UserInfoEditView", "ResetMyPasswordView"}),
        "one's own account; everybody has it here",
    ),
    (frozenset({"Admin", "Browse", "Docs"}), "a group of menus that Airflow 3's UI does not have"),
    (frozenset({"Backfills"}), "Airflow asks for dag.run instead since 3.1"),
    (frozenset({"SLA Misses", "Task Reschedules"}), "Airflow 3 has no such pages"),
    (frozenset({"All Audit Logs", "All Import Errors", "All Reparses"}), "Airflow 3.3 does not ask for it"),
)
"""Resources of Flask-AppBuilder that have no equivalent, and why."""


@dataclass(frozen=True)
class Rights:
    """What a set of permissions allows.

    Args:
        base: Cells for everything.
        selected: Cells for some Dags only, with the Dags' ids. The cells to read are all in one entry with `dag:GET`,
            but for runs that are granted Dag by Dag.
    """

    base: frozenset[str]
    selected: tuple[tuple[frozenset[str], frozenset[str]], ...]


def known(action: str, resource: str) -> bool:
    """Tell whether a permission has an equivalent.

    Args:
        action: For example `can_read`.
        resource: For example `DAG:sales`.
    """
    if resource.startswith((_DAG, _RUN)):
        return action in _METHODS.values()
    if action == "menu_access":
        return resource in _MENUS.values()
    in_use = {_DAGS, *(one for names in _ENTITIES.values() for one in names), *_RESOURCES.values()}
    return (action in _METHODS.values() and resource in in_use) or (action, resource) in _VIEWS.values()


def rights_of(permissions: frozenset[Permission]) -> Rights:
    """Give what a user with these permissions may do.

    Args:
        permissions: Of all the user's roles: FAB asks for a Dag and for what it has separately, and one role may
            hold the one and another the other.
    """
    base = {
        f"{resource}:{method}"
        for resource, name in _RESOURCES.items()
        for method, action in _METHODS.items()
        if (action, name) in permissions
    }
    base |= {f"view.{view}:GET" for view, needed in _VIEWS.items() if needed in permissions}
    base |= {f"menu.{item}:MENU" for item, name in _MENUS.items() if ("menu_access", name) in permissions}
    inside = {
        method: {
            f"dag.{entity}:{method}"
            for entity, names in _ENTITIES.items()
            if all((action, name) in permissions for name in names)
        }
        for method, action in _METHODS.items()
    }
    selected: dict[frozenset[str], set[str]] = {}
    asked = {
        "GET": {"dag:GET", *inside["GET"]},
        "POST": {"dag:POST"},
        "PUT": {"dag:PUT", *(cell for method in _WRITES for cell in inside[method])},
        "DELETE": {"dag:DELETE"},
    }
    for method, cells in asked.items():
        if (_METHODS[method], _DAGS) in permissions:
            base |= cells
        elif ids := _ids(permissions, _METHODS[method], _DAG):
            selected.setdefault(ids, set()).update(cells)
    rights = [(frozenset(cells), ids) for ids, cells in selected.items()]
    rights += _runs(permissions, inside)
    return Rights(frozenset(base), tuple(sorted(rights, key=lambda right: sorted(right[0]))))


def _runs(
    permissions: frozenset[Permission], inside: dict[str, set[str]]
) -> list[tuple[frozenset[str], frozenset[str]]]:
    found: list[tuple[frozenset[str], frozenset[str]]] = []
    for method, action in _METHODS.items():
        cell = f"dag.run:{method}"
        dag_action = _METHODS["GET" if method == "GET" else "PUT"]
        ids = _ids(permissions, action, _RUN)
        if (dag_action, _DAGS) not in permissions:
            ids &= _ids(permissions, dag_action, _DAG)
        if ids and cell not in inside[method]:
            found.append((frozenset({cell}), ids))
    return found


def _ids(permissions: frozenset[Permission], action: str, prefix: str) -> frozenset[str]:
    ids = {name.removeprefix(prefix) for one, name in permissions if one == action and name.startswith(prefix)}
    # Anything else is no Dag's id, and could be read as a pattern.
    return frozenset(one for one in ids if re.fullmatch(r"[\w.-]{1,250}", one))
