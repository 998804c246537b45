# SPDX-License-Identifier: Apache-2.0
"""`import-fab` on tables as Flask-AppBuilder's migrations make them.

That both managers answer the same is proved with FAB's own provider by `tests/security/test_fab_import.py`.
"""

from __future__ import annotations

import json

import cli_fixtures
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tradewind.security.exceptions import NotFoundError
from tradewind.security.fab import FabTables, FabUser, convert, read
from tradewind.security.fab_rights import rights_of
from tradewind.security.policy.loader import parse

configured, policy_file = cli_fixtures.configured, cli_fixtures.policy_file

TABLES = """
CREATE TABLE ab_permission (id INTEGER PRIMARY KEY, name VARCHAR(100));
CREATE TABLE ab_view_menu (id INTEGER PRIMARY KEY, name VARCHAR(250));
CREATE TABLE ab_permission_view (id INTEGER PRIMARY KEY, permission_id INTEGER, view_menu_id INTEGER);
CREATE TABLE ab_role (id INTEGER PRIMARY KEY, name VARCHAR(64));
CREATE TABLE ab_permission_view_role (id INTEGER PRIMARY KEY, permission_view_id INTEGER, role_id INTEGER);
CREATE TABLE ab_user (id INTEGER PRIMARY KEY, first_name VARCHAR(256), last_name VARCHAR(256), username VARCHAR(512),
  password VARCHAR(256), active BOOLEAN, email VARCHAR(512));
CREATE TABLE ab_user_role (id INTEGER PRIMARY KEY, user_id INTEGER, role_id INTEGER);
INSERT INTO ab_permission VALUES (1, 'can_read'), (2, 'can_edit');
INSERT INTO ab_view_menu VALUES (1, 'DAG:orders'), (2, 'DAG Runs'), (3, 'Connections');
INSERT INTO ab_permission_view VALUES (1, 1, 1), (2, 2, 1), (3, 1, 2), (4, 1, 3), (5, 9, 9);
INSERT INTO ab_role VALUES (1, 'Orders Team'), (2, 'connections'), (3, 'unused');
INSERT INTO ab_permission_view_role VALUES (1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 4, 2), (5, 5, 2), (6, 99, 1), (7, 1, 3);
INSERT INTO ab_user VALUES (1, 'A', 'A', 'alice', 'pbkdf2:sha256:hash', 1, 'alice@acme.example'),
  (2, 'B', 'B', 'bob', NULL, NULL, 'bob@acme.example'), (3, 'C', 'C', 'carol', NULL, 1, 'carol@acme.example');
INSERT INTO ab_user_role VALUES (1, 1, 1), (2, 1, 2), (3, 2, 2), (4, 3, NULL), (5, 3, 77);
"""
GROUPS = """
CREATE TABLE ab_group (id INTEGER PRIMARY KEY, name VARCHAR(100));
CREATE TABLE ab_group_role (id INTEGER PRIMARY KEY, group_id INTEGER, role_id INTEGER);
CREATE TABLE ab_user_group (id INTEGER PRIMARY KEY, user_id INTEGER, group_id INTEGER);
INSERT INTO ab_group VALUES (1, 'staff');
INSERT INTO ab_group_role VALUES (1, 1, 2);
INSERT INTO ab_user_group VALUES (1, 3, 1);
"""


def run(statements):
    from airflow.utils.session import create_session

    with create_session(scoped=False) as session:
        for statement in statements.split(";\n"):
            if statement.strip():
                session.execute(text(statement))


@pytest.fixture
def fab(configured, store, capsys):
    """The commands, on a database that has FAB's tables."""
    run(TABLES)
    return cli_fixtures.Cli(capsys)


def test_roles_with_dags_become_roles_and_bindings_of_this_deployment(fab):
    policy = parse(fab("import-fab"))
    assert (policy.file.organization, policy.file.workspace, policy.file.deployment) == ("acme", "data", "prod")
    granted = {
        (binding.user, binding.scope, cell, binding.dags.ids if binding.dags else None)
        for _, binding in policy.bindings
        for cell in policy.file.roles[binding.role].allow
    }
    orders = ("alice", "deployment/prod")
    assert granted == {
        (*orders, "dag:GET", ("orders",)),
        (*orders, "dag:PUT", ("orders",)),
        (*orders, "dag.run:GET", ("orders",)),
        (*orders, "connection:GET", None),
    }
    assert policy.file.roles["fab_Orders_Team"].description == "From FAB's 'Orders Team', for chosen Dags"


def test_users_can_be_known_by_their_address(fab):
    policy = parse(fab("import-fab", "--user-id", "email"))
    assert {binding.user for _, binding in policy.bindings} == {"alice@acme.example"}


def test_the_report_says_what_was_not_carried_over(fab):
    fab("import-fab", "--report", "json")
    report = json.loads(fab.error)
    said = {(note["severity"], note["what"]) for note in report}
    assert {
        ("action", "administrators"),
        ("action", "passwords of 1 users"),
        ("action", "webserver_config.py"),
        ("info", "user 'bob'"),
        ("info", "user 'carol'"),
        ("warning", "role 'unused'"),
    } <= said
    assert "pbkdf2" not in json.dumps(report)


def test_roles_by_a_group_are_reported_because_the_api_never_looked_at_them(fab):
    run(GROUPS)
    policy = parse(fab("import-fab"))
    assert {binding.user for _, binding in policy.bindings} == {"alice"}
    assert "user 'carol': has connections by a group of FAB only" in fab.error


def test_a_file_is_written_once_and_never_overwritten(fab, tmp_path):
    path = tmp_path / "imported.yaml"
    report = fab("import-fab", "--output", str(path), "--report", "json")
    assert {note["severity"] for note in json.loads(report)} == {"action", "warning", "info"}
    policy = path.read_text(encoding="utf-8")
    assert parse(policy).bindings
    assert "exists already" in fab.fails("import-fab", "--output", str(path))
    assert path.read_text(encoding="utf-8") == policy
    assert "can't be written" in fab.fails("import-fab", "--output", str(tmp_path / "none" / "x.yaml"))


def test_a_database_without_fab_is_said_to_have_none(store):
    from airflow.utils.session import create_session

    with create_session(scoped=False) as session, pytest.raises(NotFoundError, match="ab_user"):
        read(session)


METHODS = {"GET": "can_read", "POST": "can_create", "PUT": "can_edit", "DELETE": "can_delete"}
DAGS = ["orders", "payroll", "other"]
INSIDE = {"run": ["DAG Runs"], "task_instance": ["DAG Runs", "Task Instances"], "xcom": ["XComs"]}
RESOURCES = ["DAGs", "DAG:orders", "DAG:payroll", "DAG Run:orders", "DAG Runs", "Task Instances", "XComs", "Pools"]
permissions = st.frozensets(
    st.tuples(st.sampled_from([*METHODS.values(), "menu_access"]), st.sampled_from(RESOURCES)), max_size=16
)


def fab_allows(held, cell, dag):
    """The rules of `FabAuthManager.is_authorized_dag`, for a Dag that is named."""
    resource, _, method = cell.partition(":")
    entity = resource.partition(".")[2]

    def on_dag(action):
        return (action, "DAGs") in held or (action, f"DAG:{dag}") in held

    if not entity:
        return on_dag(METHODS[method])
    inside = all((METHODS[method], name) in held for name in INSIDE[entity])
    inside |= entity == "run" and (METHODS[method], f"DAG Run:{dag}") in held
    return inside and on_dag("can_read" if method == "GET" else "can_edit")


@settings(deadline=None)
@given(permissions)
def test_rights_of_a_named_dag_are_those_that_fab_gives(held):
    rights = rights_of(held)
    for dag in DAGS:
        found = rights.base.union(*(cells for cells, ids in rights.selected if dag in ids))
        for entity in ("dag", *(f"dag.{name}" for name in INSIDE)):
            for method in METHODS:
                cell = f"{entity}:{method}"
                assert (cell in found) == fab_allows(held, cell, dag), (cell, dag)


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(st.text(min_size=1, max_size=64), permissions, max_size=4),
    st.lists(st.text(max_size=300), max_size=3, unique=True),
)
def test_whatever_names_roles_and_users_have_the_policy_loads(roles, names):
    users = tuple(FabUser(name, True, False, frozenset(roles)) for name in names)
    imported = convert(FabTables(roles, users, {}))
    policy = parse(yaml.safe_dump(imported.policy))
    assert {binding.user for _, binding in policy.bindings} <= set(names)
    assert all(note.severity in {"action", "warning", "info"} and note.why for note in imported.report)
