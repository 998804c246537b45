# SPDX-License-Identifier: Apache-2.0
"""Moving from FabAuthManager: both managers are asked the same questions, one with FAB's tables, one with the import.

Ours may never say yes where FAB says no. It says no to FAB's yes in two cases: a write that names no Dag passes in FAB
without the right to edit all Dags, and rights on names that no Dag can have open FAB's (empty) list of Dags.
"""

from __future__ import annotations

import shutil
import warnings
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_fixtures import make_tables, using_database

from tradewind.security.auth_manager import TradewindAuthManager
from tradewind.security.fab import FabTables, FabUser, Imported, convert, read
from tradewind.security.policy.lint import lint
from tradewind.security.policy.loader import PolicyLoader, parse
from tradewind.security.principal import Principal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.fab

DAGS = ["orders", "payroll", "sales_eu", "unknown"]
METHODS = ("GET", "POST", "PUT", "DELETE")

READ, CREATE, EDIT, DELETE, MENU = "can_read", "can_create", "can_edit", "can_delete", "menu_access"
INSIDE = ("DAG Runs", "Task Instances", "Task Logs", "XComs")

CUSTOM_ROLES: dict[str, list[tuple[str, str]]] = {
    "what Dags have": [(action, name) for action in (READ, CREATE, EDIT) for name in INSIDE],
    "only reads inside": [(READ, name) for name in INSIDE],
    "orders": [(READ, "DAG:orders"), (EDIT, "DAG:orders")],
    "payroll (read)": [(READ, "DAG:payroll"), (READ, "Website")],
    "edits but can't see": [(EDIT, "DAG:sales_eu"), (EDIT, "DAG Runs")],
    "deletes": [(DELETE, "DAG:orders"), (DELETE, "DAG:payroll")],
    "runs of orders": [
        (READ, "DAG:orders"),
        (EDIT, "DAG:orders"),
        (READ, "DAG Run:orders"),
        (CREATE, "DAG Run:orders"),
    ],
    "runs without the Dag": [(READ, "DAG Run:payroll"), (DELETE, "DAG Run:payroll")],
    "edits all, sees one": [(EDIT, "DAGs"), (READ, "DAG:orders"), (EDIT, "Task Instances")],
    "connections": [(READ, "Connections"), (MENU, "Connections"), (EDIT, "Pools")],
    "plugin": [(READ, "My Plugin's View"), (MENU, "My Plugin"), (READ, "Users"), (EDIT, "Roles")],
    "orders with runs": [(READ, "DAG:orders"), (READ, "DAG Runs")],
    "orders with XComs": [(READ, "DAG:orders"), (READ, "XComs")],
    "old names": [(READ, "DAG:with*star"), (READ, "DAG:[x]"), (EDIT, "DAG:a b"), (READ, "DAG Run:*")],
}
USERS: dict[str, list[str]] = {
    "viewer": ["Viewer"],
    "user": ["User"],
    "op": ["Op"],
    "admin": ["Admin"],
    "public": ["Public"],
    "nobody": [],
    **{f"one {number}": [name] for number, name in enumerate(CUSTOM_ROLES)},
    "both halves": ["what Dags have", "orders"],
    "two Dags, one with rights inside": ["runs of orders", "payroll (read)"],
    "reads inside two Dags": ["only reads inside", "orders", "payroll (read)"],
    "viewer who edits one": ["Viewer", "orders"],
    "viewer who edits inside one": ["Viewer", "orders", "what Dags have"],
    "runs come together": ["runs without the Dag", "payroll (read)"],
    "one Dag by two roles": ["orders with runs", "orders with XComs"],
    "adds up": ["connections", "orders"],
}


def fab_world() -> Any:
    """FAB's classes. Its world of Flask warns of deprecated calls that are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow.providers.fab.auth_manager.fab_auth_manager import FabAuthManager
        from airflow.providers.fab.auth_manager.models import Group, User
        from airflow.providers.fab.auth_manager.security_manager.override import FabAirflowSecurityManagerOverride
        from airflow.providers.fab.www.security_appless import ApplessAirflowSecurityManager
    return SimpleNamespace(
        AuthManager=FabAuthManager,
        Group=Group,
        User=User,
        roles=FabAirflowSecurityManagerOverride.ROLE_CONFIGS,
        SecurityManager=ApplessAirflowSecurityManager,
    )


@contextmanager
def fab_database(migrated_sqlite: Path, folder: Path) -> Iterator[None]:
    from airflow.models import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.session import create_session

    fab = fab_world()
    path = folder / "airflow.db"
    shutil.copy(migrated_sqlite, path)
    with using_database(f"sqlite:///{path}"):
        make_tables()
        with create_session(scoped=False) as session:
            fab.User.metadata.create_all(
                session.connection(), tables=[t for n, t in fab.User.metadata.tables.items() if n.startswith("ab_")]
            )
            session.add(DagBundleModel(name="b"))
            session.flush()
            session.add_all(DagModel(dag_id=dag_id, bundle_name="b") for dag_id in DAGS[:3])
            session.flush()
            fill(fab, session)
        yield


def fill(fab: Any, session: Any) -> None:
    """Roles, permissions and users, as FAB makes them itself."""
    manager = fab.SecurityManager(session=session)
    manager.bulk_sync_roles(fab.roles)
    roles = {name: manager.add_role(name) for name in ("Viewer", "User", "Op", "Admin", "Public", *CUSTOM_ROLES)}
    for name, pairs in CUSTOM_ROLES.items():
        for action, resource in pairs:
            manager.add_permission_to_role(roles[name], manager.create_permission(action, resource))
    # What `access_control` in a Dag file writes.
    manager.sync_perm_for_dag("sales_eu", {"orders": {READ, EDIT, DELETE}})
    for name, held in USERS.items():
        manager.add_user(
            name,
            name,
            "X",
            f"{len(name)}{name.replace(' ', '')}@acme.example",
            [roles[r] for r in held],
            hashed_password="x",  # noqa: S106
        )
    manager.add_user("left", "L", "X", "left@acme.example", [roles["Admin"]], hashed_password="x")  # noqa: S106
    session.query(fab.User).filter(fab.User.username == "left").one().active = False
    group = fab.Group(name="staff")
    group.roles = [roles["Op"]]
    session.add(group)
    session.query(fab.User).filter(fab.User.username == "nobody").one().groups = [group]
    session.flush()


@pytest.fixture(scope="module")
def imported(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imported]:
    from airflow.utils.session import create_session

    with fab_database(migrated_sqlite, tmp_path_factory.mktemp("fab")):
        with create_session(scoped=False) as session:
            found = read(session)
        yield convert(found, organization="acme", workspace="data", deployment="prod")


@pytest.fixture(scope="module")
def ours(imported: Imported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TradewindAuthManager]:
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text(yaml.safe_dump(imported.policy), encoding="utf-8")
    manager = TradewindAuthManager()
    manager.policies = PolicyLoader(path)
    yield manager
    manager.directory.close()


def questions() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Everything that Airflow can ask: a name, the method's name, and its arguments."""
    from airflow.api_fastapi.auth.managers.models import resource_details as details
    from airflow.api_fastapi.common.types import MenuItem

    for method in METHODS:
        for dag_id in (None, *DAGS):
            about = None if dag_id is None else details.DagDetails(id=dag_id)
            for entity in (None, *details.DagAccessEntity):
                label = f"dag.{entity.name}:{method}" if entity else f"dag:{method}"
                arguments = {"method": method, "access_entity": entity, "details": about}
                yield f"{label} {dag_id or '~'}", "is_authorized_dag", arguments
        for kind, about in {
            "connection": details.ConnectionDetails(conn_id="x"),
            "variable": details.VariableDetails(key="x"),
            "pool": details.PoolDetails(name="x"),
            "asset": details.AssetDetails(id="1"),
            "asset_alias": details.AssetAliasDetails(id="1"),
            "configuration": details.ConfigurationDetails(section="core"),
        }.items():
            for asked in (None, about):
                yield (
                    f"{kind}:{method} {'x' if asked else '~'}",
                    f"is_authorized_{kind}",
                    {"method": method, "details": asked},
                )
    for view in details.AccessView:
        yield f"view.{view.name}", "is_authorized_view", {"access_view": view}
    for item in MenuItem:
        yield f"menu.{item.name}", "filter_authorized_menu_items", {"menu_items": [item]}
    for method in METHODS:
        yield f"filter dags {method}", "filter_authorized_dag_ids", {"dag_ids": set(DAGS[:3]), "method": method}


QUESTIONS = list(questions())


def differences(
    theirs: Any, fab_user: Any, ours: TradewindAuthManager, user: Principal
) -> Iterator[tuple[str, Any, Any]]:
    for label, name, arguments in QUESTIONS:
        expected = getattr(theirs, name)(user=fab_user, **arguments)
        found = getattr(ours, name)(user=user, **arguments)
        if expected != found:
            yield label, expected, found


def writes_inside_without_a_dag(label: str) -> bool:
    return label.startswith("dag.") and label.endswith(" ~") and ":GET" not in label


def test_the_questions_are_all_that_there_are() -> None:
    assert len(QUESTIONS) > 300
    assert len({label for label, _, _ in QUESTIONS}) == len(QUESTIONS)


@pytest.mark.parametrize("name", USERS)
def test_nobody_may_do_more_than_before_and_less_only_where_that_is_meant(
    name: str, imported: Imported, ours: TradewindAuthManager
) -> None:
    from airflow.utils.session import create_session

    assert imported.policy["deployment"] == "prod"
    fab = fab_world()
    theirs = fab.AuthManager()
    with create_session(scoped=False) as session:
        fab_user = session.query(fab.User).filter(fab.User.username == name).one()
        found = list(differences(theirs, fab_user, ours, Principal(name)))
        readable = theirs.get_authorized_dag_ids(user=fab_user)
        assert set(ours.get_authorized_dag_ids(user=Principal(name))) == readable
        edits_all = (EDIT, "DAGs") in fab_user.perms
    wider = [one for one in found if one[2] and not one[1]]
    assert wider == []
    less = {label for label, _, _ in found if edits_all or not writes_inside_without_a_dag(label)}
    assert less == ({"dag:GET ~"} if USERS[name] == ["old names"] else set())


def test_some_users_may_do_something_and_some_may_not(ours: TradewindAuthManager) -> None:
    def allowed(name: str) -> int:
        return sum(bool(getattr(ours, method)(user=Principal(name), **arguments)) for _, method, arguments in QUESTIONS)

    assert allowed("admin") > allowed("op") > allowed("user") > allowed("viewer") > allowed("nobody") == 0
    assert allowed("both halves") > allowed("one 0") + allowed("one 2")


def test_a_user_who_left_is_in_no_binding(imported: Imported, ours: TradewindAuthManager) -> None:
    assert not any(binding["user"] in {"left", "nobody"} for binding in imported.policy["bindings"])  # type: ignore[attr-defined]
    assert not ours.is_authorized_dag(method="GET", user=Principal("left"))


def test_the_imported_policy_has_no_mistake_that_lint_finds(imported: Imported) -> None:
    found = lint(parse(yaml.safe_dump(imported.policy)), environment={})
    assert [finding for finding in found if finding.severity == "error"] == []


def test_roles_that_mean_more_together_are_made_into_one_and_reported(imported: Imported) -> None:
    roles: Any = imported.policy["roles"]
    assert any("'orders' and 'what Dags have'" in role["description"] for role in roles.values())
    assert not any("'connections' and 'orders'" in role["description"] for role in roles.values())
    assert any("'orders' and 'what Dags have'" in note.what for note in imported.report)


@pytest.mark.parametrize(
    ("severity", "what"),
    [
        ("action", "administrators"),
        ("action", "passwords"),
        ("action", "webserver_config.py"),
        ("warning", "'DAG:with*star'"),
        ("warning", "'DAG:[x]'"),
        ("warning", 'role "edits but can\'t see"'),
        ("warning", "user 'nobody'"),
        ("info", "user 'left'"),
        ("info", "user 'nobody'"),
        ("info", "My Plugin's View"),
        ("info", "'Backfills'"),
        ("info", "'Users'"),
    ],
)
def test_what_has_no_equivalent_is_reported(imported: Imported, severity: str, what: str) -> None:
    assert [note for note in imported.report if note.severity == severity and what in note.what], imported.report


RESOURCES = ["DAGs", "DAG:orders", "DAG:payroll", "DAG Run:orders", "DAG Run:payroll", *INSIDE]
RESOURCES += ["HITL Detail", "Audit Logs", "Connections", "Documentation", "Jobs"]
permission = st.tuples(st.sampled_from([READ, CREATE, EDIT, DELETE, MENU]), st.sampled_from(RESOURCES))


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(roles=st.lists(st.frozensets(permission, max_size=14), min_size=1, max_size=3))
def test_whatever_permissions_roles_hold_the_import_says_what_fab_says(
    roles: list[frozenset[tuple[str, str]]], ours: TradewindAuthManager, tmp_path: Path
) -> None:
    names = {f"role {number}": held for number, held in enumerate(roles)}
    tables = FabTables(names, (FabUser("u", True, False, frozenset(names)),), {})
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(convert(tables).policy), encoding="utf-8")
    manager = TradewindAuthManager()
    manager.policies = PolicyLoader(path)
    manager.directory = ours.directory
    fab_user = SimpleNamespace(perms=frozenset().union(*roles))
    found = list(differences(fab_world().AuthManager(), fab_user, manager, Principal("u")))
    assert [one for one in found if one[2] and not one[1]] == []
    assert [one for one in found if not writes_inside_without_a_dag(one[0])] == []
    if (EDIT, "DAGs") in fab_user.perms:
        assert found == []
