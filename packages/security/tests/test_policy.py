# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import csv
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.security.exceptions import PolicyError
from tradewind.security.policy.cells import BITS, CELLS, expand, mask_of, names_of
from tradewind.security.policy.compiler import Compiled, DagFacts, compile_principal
from tradewind.security.policy.loader import PolicyLoader, parse, shipped_roles
from tradewind.security.principal import Principal

MATRIX = list(csv.DictReader((Path(__file__).parent / "data" / "matrix.csv").read_text(encoding="utf-8").splitlines()))
HEAD = "version: 1\norganization: acme\nworkspace: data\ndeployment: prod\n"


def compiled(text: str, principal: Principal, *teams: str) -> Compiled:
    policy = parse(HEAD + text)
    return compile_principal(principal, policy.file, policy.masks, policy.bindings, frozenset(teams))


def dag_cells(rules: Compiled, dag_id: str, team: str | None = None, facts: DagFacts | None = None) -> set[str]:
    return set(names_of(rules.dag(dag_id, team, lambda _: facts or DagFacts(), object())))


def test_shipped_roles_have_exactly_the_cells_of_the_table() -> None:
    policy = parse("version: 1")
    roles = [name for name in MATRIX[0] if name not in {"resource", "method", "routes_3_3_2"}]
    assert sorted(roles) == sorted(shipped_roles())
    assert {f"{row['resource']}:{row['method']}" for row in MATRIX} == set(CELLS)
    for row in MATRIX:
        cell = f"{row['resource']}:{row['method']}"
        for role in roles:
            assert bool(policy.masks[role] & BITS[cell]) == (row[role] == "1"), (role, cell)


def test_the_cells_are_those_of_the_installed_airflow() -> None:
    # A member that a new Airflow adds is denied until somebody decides about it: here is where that shows.
    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
    from airflow.api_fastapi.common.types import MenuItem

    def known(prefix: str, method: str) -> set[str]:
        return {c.split(":")[0].removeprefix(prefix) for c in CELLS if c.startswith(prefix) and c.endswith(method)}

    assert {entity.name.lower() for entity in DagAccessEntity} == known("dag.", ":GET")
    assert {view.name.lower() for view in AccessView} == known("view.", ":GET")
    assert {item.name.lower() for item in MenuItem} == known("menu.", ":MENU")
    assert {str(method) for method in ResourceMethod} == {"GET", "POST", "PUT", "DELETE"}


def test_the_auth_manager_overrides_every_question_of_the_installed_airflow() -> None:
    from airflow.api_fastapi.auth.managers.base_auth_manager import BaseAuthManager

    from tradewind.security.auth_manager import TradewindAuthManager

    asked = {
        name
        for name in vars(BaseAuthManager)
        if name.startswith(("is_authorized", "batch_is", "filter_authorized", "get_authorized"))
    }
    # It only calls filter_authorized_menu_items, and the sets of teams are never long.
    assert asked - set(vars(TradewindAuthManager)) == {"get_authorized_menu_items", "get_authorized_teams"}


def test_a_dag_role_holds_on_its_dags_only_and_its_other_cells_everywhere() -> None:
    rules = compiled(
        "bindings: [{user: bob, role: dag_author, scope: deployment/prod, dags: {ids: ['sales_*', exact]}}]",
        Principal("bob"),
    )
    assert "dag.run:POST" in dag_cells(rules, "sales_daily")
    assert "dag.run:POST" in dag_cells(rules, "exact")
    assert dag_cells(rules, "Sales_daily") == dag_cells(rules, "exact2") == set(names_of(rules.base))
    assert "menu.dags:MENU" in names_of(rules.base)
    assert not rules.written_everywhere & mask_of(["dag:*", "dag.*:*"])


@pytest.mark.parametrize(
    ("facts", "team", "expected"),
    [
        (DagFacts(tags=frozenset({"a", "team:sales"})), None, True),
        (DagFacts(bundle="sales"), None, True),
        (DagFacts(), "sales", True),
        (DagFacts(tags=frozenset({"team:sale"}), bundle="sales2"), "sale", False),
    ],
)
def test_dags_are_chosen_by_tag_bundle_and_team(facts: DagFacts, team: str | None, *, expected: bool) -> None:
    rules = compiled(
        "bindings: [{user: bob, role: dag_viewer, scope: deployment/prod,"
        " dags: {tags: ['team:sales'], bundles: [sales], teams: [sales]}}]",
        Principal("bob"),
    )
    assert ("dag:GET" in dag_cells(rules, "any", team, facts)) == expected


def test_grants_unite_and_a_deny_wins() -> None:
    text = """
bindings:
- {user: ann, role: ws_member, scope: workspace/data}
- {team: ops, role: deployment_operator, scope: deployment/prod}
- {group: "corp:sre", role: ws_owner, scope: organization/acme}
deny:
- {team: contractors, cells: ["connection:*", "dag.xcom:*"]}
- {user: ann, cells: ["dag.run:DELETE"], dags: {ids: [payroll]}}
issuers: [{name: corp, issuer: "https://idp.example", client_id: x}]
"""
    plain = compiled(text, Principal("ann"))
    assert "connection:GET" not in names_of(plain.base)
    ops = compiled(text, Principal("ann"), "ops")
    assert "connection:DELETE" in names_of(ops.base)
    contractor = compiled(text, Principal("ann"), "ops", "contractors")
    assert not any(cell.startswith("connection") for cell in names_of(contractor.base))
    assert "dag.xcom:GET" not in dag_cells(contractor, "any")
    assert "dag.run:DELETE" in dag_cells(ops, "any")
    assert "dag.run:DELETE" not in dag_cells(ops, "payroll")
    assert not ops.written_everywhere & BITS["dag.run:DELETE"]
    grouped = compiled(text, Principal("zoe", groups=frozenset({"corp:sre"})))
    assert "tw.audit.read:*" in names_of(grouped.base)


def test_a_user_and_a_service_of_the_same_name_are_two() -> None:
    text = "bindings: [{user: ci, role: ws_owner, scope: workspace/data}]"
    assert compiled(text, Principal("ci")).base
    assert not compiled(text, Principal("ci", kind="service")).base
    assert not compiled(text, Principal("ci", kind="workload")).base


def test_a_binding_for_another_place_grants_nothing() -> None:
    text = """
bindings:
- {user: ann, role: ws_owner, scope: workspace/other}
- {user: ann, role: deployment_admin, scope: deployment/test}
- {user: ann, role: org_owner, scope: organization/another}
"""
    assert compiled(text, Principal("ann")).base == 0


def test_a_token_never_has_more_than_its_scopes_and_its_owner() -> None:
    text = "bindings: [{user: ann, role: ws_member, scope: workspace/data}]"
    rules = compiled(text, Principal("ann", scopes=frozenset({"dag:GET", "connection:*"})))
    assert names_of(rules.base) == ["dag:GET"]


def test_a_list_that_would_show_more_than_is_granted_is_refused() -> None:
    text = """
bindings:
- {user: ann, role: ws_member, scope: workspace/data}
- {user: ann, role: dag_author, scope: deployment/prod, dags: {ids: [mine]}}
"""
    rules = compiled(text, Principal("ann"))
    assert "dag.xcom:GET" in dag_cells(rules, "mine")
    # Airflow would filter the rows by dag:GET, which ann has on every Dag.
    assert not rules.without_id & BITS["dag.xcom:GET"]
    assert rules.without_id & BITS["dag.run:GET"]


def test_team_bindings_reach_what_belongs_to_the_team() -> None:
    rules = compiled("bindings: [{user: ann, role: team_member, scope: team/sales}]", Principal("ann"))
    assert rules.resource("connections", "any", "sales") & BITS["connection:GET"]
    assert not rules.resource("connections", "any", "hr") & BITS["connection:GET"]
    assert not rules.resource("connections", "any", None) & BITS["connection:GET"]
    assert rules.team_cells["sales"] & BITS["team:GET"]
    assert not rules.base & BITS["connection:GET"]


def test_connections_can_be_chosen_by_pattern() -> None:
    rules = compiled(
        "bindings: [{user: ann, role: deployment_operator, scope: deployment/prod, connections: {ids: ['sales_*']}}]",
        Principal("ann"),
    )
    assert rules.resource("connections", "sales_db", None) & BITS["connection:PUT"]
    assert not rules.resource("connections", "hr_db", None) & BITS["connection:GET"]
    assert rules.base & BITS["variable:PUT"]
    assert not rules.base & BITS["connection:POST"]


BAD = [
    ("version: 2", 1, "version"),
    ("", 1, "expected keys"),
    ("[]", 1, "expected keys"),
    ("version: 1\nbinding: []", 2, "binding: is not known here"),
    ("version: 1\nversion: 1", 2, "given twice (first in line 1)"),
    ("version: 1\nroles:\n  a: {}\n  a: {}", 4, "given twice"),
    ("version: 1\nbindings:\n- {user: a, role: nope, scope: deployment/x}", 3, "unknown role 'nope'"),
    ("version: 1\nbindings:\n\n- {user: a, team: b, role: ws_owner, scope: workspace/x}", 4, "exactly one of"),
    ("version: 1\nbindings:\n- {role: ws_owner, scope: workspace/x}", 3, "exactly one of"),
    ("version: 1\nbindings:\n- {user: a, role: ws_owner, scope: prod}", 3, "scope"),
    (
        "version: 1\nbindings:\n- {user: a, role: ws_owner, scope: deployment/x}",
        3,
        "bound at organization or workspace",
    ),
    ("version: 1\nbindings:\n- {user: a, role: dag_viewer, scope: deployment/x}", 3, "give ids, tags"),
    ("version: 1\nbindings:\n- {user: a, role: dag_viewer, scope: deployment/x, dags: {}}", 3, "at least one of"),
    ("version: 1\nbindings:\n- {user: a, role: dag_viewer, scope: deployment/x, dags: {ids: ['[ab]']}}", 3, "know *"),
    ("version: 1\nbindings:\n- {group: 'x:y', role: ws_owner, scope: workspace/x}", 3, "no issuer is named 'x'"),
    ("version: 1\nroles: {a: {allow: ['dag.rum:GET']}}", 2, "did you mean dag.run:GET"),
    ("version: 1\nroles: {a: {extends: [b]}}", 2, "unknown role 'b'"),
    ("version: 1\nroles: {a: {extends: [b]}, b: {extends: [a]}}", 2, "is a circle"),
    ("version: 1\nroles: {ws_owner: {}}", 2, "can't be replaced"),
    ("version: 1\nsession: {idle: 5 parsecs}", 2, "expected a duration"),
    ("version: 1\nissuers: [{name: a, issuer: 'http://idp.example', client_id: x}]", 2, "expected https"),
    ("version: 1\nissuers: [{name: a, issuer: 'https://idp.example'}]", 2, "client_id"),
    (
        "version: 1\nissuers: [{name: a, issuer: 'https://i.example', audience: x, algorithms: [HS256]}]",
        2,
        "algorithms",
    ),
    ("version: 1\nissuers: [{name: a, issuer: 'https://u:p@i.example', audience: x}]", 2, "password"),
    ("version: 1\ndeny: [{user: a, cells: []}]", 2, "cells"),
    ("version: 1\na: &a [*a]", 2, ""),
    ("version: 1\n\tx: 1", 2, ""),
]


@pytest.mark.parametrize(("text", "line", "message"), BAD)
def test_a_malformed_policy_is_refused_with_file_line_and_key(text: str, line: int, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(text, "policy.yaml")
    first = str(caught.value).splitlines()[0]
    assert first.startswith("policy.yaml:")
    assert message in str(caught.value)
    if message:
        assert first.startswith(f"policy.yaml:{line}:"), first


def test_a_secret_in_a_url_is_not_repeated() -> None:
    with pytest.raises(PolicyError) as caught:
        parse("version: 1\nissuers: [{name: a, issuer: 'https://u:hunter2@i.example', audience: x}]")
    assert "hunter2" not in str(caught.value)


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["version: 1", "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(PolicyError, match="too large or too deep"):
        parse("\n".join(lines))


@given(st.text(max_size=200) | st.binary(max_size=50).map(lambda data: data.decode("latin-1")))
def test_no_text_raises_anything_but_a_policy_error(text: str) -> None:
    for candidate in (text, f"version: 1\n{text}", f"version: 1\nbindings:\n- {{{text}}}"):
        with contextlib.suppress(PolicyError):
            parse(candidate)


@given(st.text(alphabet="dagrunxco.:*GETPUSW_tw[]()\\", max_size=20))
def test_no_cell_raises_anything_but_a_policy_error(pattern: str) -> None:
    with contextlib.suppress(PolicyError):
        assert expand(pattern) <= set(CELLS)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nworkspace: one\n", encoding="utf-8")
    return path


def _wait_for_workspace(loader: PolicyLoader, name: str) -> None:
    end = time.monotonic() + 5
    while loader.current().file.workspace != name:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_changed_file_is_taken_over(file: Path) -> None:
    loader = PolicyLoader(file, reload_seconds=0.2)
    assert loader.current().file.workspace == "one"
    file.write_text("version: 1\nworkspace: two\n", encoding="utf-8")
    _wait_for_workspace(loader, "two")


def test_a_change_holds_for_the_first_request_after_a_quiet_time(file: Path) -> None:
    loader = PolicyLoader(file, reload_seconds=0.1)
    file.write_text("version: 1\nworkspace: two\n", encoding="utf-8")
    time.sleep(0.15)
    assert loader.current().file.workspace == "two"


@pytest.mark.parametrize("bad", ["version: 3", "", "version: 1\nworkspace: [", None])
def test_a_file_that_became_unusable_leaves_the_last_good_policy(
    file: Path, bad: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    loader = PolicyLoader(file, reload_seconds=60)
    if bad is None:
        file.unlink()
    else:
        file.write_text(bad, encoding="utf-8")
    assert not loader.refresh()
    assert loader.current().file.workspace == "one"
    assert loader.problem
    assert str(file) in loader.problem
    assert "stays as it was" in caplog.text
    file.write_text("version: 1\nworkspace: three\n", encoding="utf-8")
    assert loader.refresh()
    assert loader.current().file.workspace == "three"
    assert loader.problem is None


def test_a_file_replaced_by_renaming_is_seen(file: Path, tmp_path: Path) -> None:
    loader = PolicyLoader(file, reload_seconds=60)
    stamp = file.stat()
    other = tmp_path / "new"
    other.write_text("version: 1\nworkspace: two\n", encoding="utf-8")
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    other.replace(file)
    assert loader.refresh()


@pytest.mark.parametrize("text", ["version: 9", None])
def test_the_first_load_fails_closed(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "policy.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(PolicyError, match=r"policy\.yaml"):
        PolicyLoader(path)


def test_readers_see_a_whole_policy_while_it_is_replaced(file: Path) -> None:
    loader = PolicyLoader(file, reload_seconds=0.001)
    failures: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            found = loader.current().file
            if (found.workspace, found.deployment) not in {("one", "default"), ("a", "a"), ("b", "b")}:
                failures.append(found)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for name in "ab" * 20:
        temporary = file.with_suffix(".tmp")
        temporary.write_text(f"version: 1\nworkspace: {name}\ndeployment: {name}\n", encoding="utf-8")
        temporary.replace(file)
        time.sleep(0.005)
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []
