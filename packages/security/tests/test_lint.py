# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tradewind.security.policy.cells import BITS, CELLS
from tradewind.security.policy.lint import lint
from tradewind.security.policy.loader import parse, shipped_roles
from tradewind.security.policy.pages import PAGES, UNASKED
from tradewind.security.policy.schema import Binding

HEAD = """\
version: 1
organization: acme
workspace: data
deployment: prod
"""
OWNER = "- {user: root, role: org_owner, scope: organization/acme}"
CI = (
    "{name: ci, issuer: https://ci.example, audience: a, workload: true, "
    "bind: [{claim: %s, equals: v, role: ci_deployer}]}"
)
AUTHOR = "- {user: a, role: ws_author, scope: workspace/data}"
MEMBER = "- {user: a, role: ws_member, scope: workspace/data}"
SECOND_OWNER = "- {user: two, role: ws_owner, scope: workspace/data}"
DENIED_OWNER = "deny: [{user: root, cells: ['tw.*']}]"


def findings(text, environment=None, **known):
    return lint(parse(HEAD + text, "policy.yaml"), environment=environment or {}, **known)


def found(text, **known):
    """Id and severity of each finding, without that of the owner that most texts lack."""
    return [(f.id, f.severity) for f in findings(text, **known) if f.id != "nobody-owns"]


def bound(*entries):
    return "bindings:\n" + "\n".join(entries)


def test_a_clean_policy_has_no_finding():
    text = f"roles: {{oncall: {{extends: [deployment_viewer], allow: ['dag.run:PUT']}}}}\n{bound(OWNER)}"
    assert findings(text, teams=[]) == []


def test_a_finding_has_its_line_a_sentence_and_a_remedy():
    (finding,) = findings(f"{bound(OWNER)}\nplugins:\n  anonymous: [/]\n")
    assert finding.place == "policy.yaml:8"
    assert finding.message
    assert finding.fix


@pytest.mark.parametrize("page", PAGES)
def test_a_role_that_shows_a_page_needs_all_of_its_cells(page):
    menu, asked = PAGES[page]
    together = {cell for shown, cells in PAGES.values() if shown == menu for cell in cells}
    allow = ", ".join(f'"{cell}"' for cell in sorted({menu, *together}))
    assert found(f"roles: {{r: {{allow: [{allow}]}}}}") == []
    for cell in asked:
        less = ", ".join(f'"{one}"' for one in sorted({menu, *together} - {cell}))
        assert ("page-incomplete", "warning") in found(f"roles: {{r: {{allow: [{less}]}}}}")
    assert found(f'roles: {{r: {{allow: ["{sorted(asked)[0]}"]}}}}') == []


def test_a_role_that_extends_a_whole_one_is_complete():
    assert found("roles: {r: {extends: [deployment_viewer], allow: ['menu.dags:MENU']}}") == []


def test_the_shipped_roles_complete_their_pages():
    masks = parse("version: 1").masks
    for role in shipped_roles():
        held = {cell for cell in CELLS if masks[role] & BITS[cell]}
        for page, (menu, asked) in PAGES.items():
            assert menu not in held or asked <= held, (role, page)


def test_pages_and_unasked_cells_are_cells_and_match_the_table_of_routes():
    known = set(CELLS)
    assert known >= UNASKED
    for menu, asked in PAGES.values():
        assert {menu, *asked} <= known
        assert not asked & UNASKED
    table = Path(__file__).parent / "data" / "matrix.csv"
    for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines()):
        cell = f"{row['resource']}:{row['method']}"
        if cell in UNASKED:
            assert row["routes_3_3_2"] in {"", "0"}, cell


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("roles: {r: {allow: ['dag.code:PUT']}}", [("cell-unasked", "info")]),
        ("roles: {r: {allow: ['dag.code:*']}}", []),
        (bound("- {user: a, role: ws_member, scope: workspace/ml}"), [("binding-elsewhere", "info")]),
        (bound("- {user: a, role: deployment_viewer, scope: deployment/test}"), [("binding-elsewhere", "info")]),
        (bound(AUTHOR, MEMBER), [("binding-shadowed", "info")]),
        (bound(AUTHOR, AUTHOR), [("binding-shadowed", "info")]),
        (
            bound(
                "- {user: a, role: ws_author, scope: workspace/data, dags: {ids: [x]}}",
                "- {user: a, role: ws_member, scope: workspace/data}",
            ),
            [],
        ),
        (bound("- {user: a, role: ws_author, scope: workspace/ml}", MEMBER), [("binding-elsewhere", "info")]),
        (bound(AUTHOR, "- {user: b, role: ws_member, scope: workspace/data}"), []),
        (
            bound(
                "- {user: a, role: dag_author, scope: team/t}",
                "- {user: a, role: dag_viewer, scope: deployment/prod, dags: {ids: [x]}}",
            ),
            [],
        ),
        (
            bound("- {user: a, role: dag_viewer, scope: deployment/prod, dags: {tags: [sales]}}"),
            [("tag-chosen-by-author", "warning")],
        ),
        (
            bound("- {user: a, role: dag_viewer, scope: deployment/prod, dags: {ids: ['*']}}"),
            [("selector-matches-all", "info")],
        ),
        (
            bound("- {user: a, role: ws_author, scope: workspace/data, pools: {ids: [x, '*']}}"),
            [("selector-matches-all", "info")],
        ),
        (bound("- {team: core, role: ws_author, scope: workspace/data}"), [("team-unknown", "info")]),
        ("issuers: [{name: c, issuer: https://c.example, client_id: x, teams: {g: core}}]", [("team-unused", "info")]),
        (
            "issuers: [{name: c, issuer: https://c.example, client_id: x, teams: {g: core}}]\n"
            + bound("- {team: core, role: ws_author, scope: workspace/data}"),
            [],
        ),
        ("deny: [{user: a, cells: ['pool:*']}]", [("deny-without-effect", "info")]),
        (bound("- {group: 'c:g', role: ws_author, scope: workspace/data}")
         + "\nissuers: [{name: c, issuer: https://c.example, client_id: x}]\ndeny: [{user: a, cells: ['pool:*']}]", []),
        (f"{bound(OWNER)}\n{DENIED_OWNER}", [("deny-hits-last-owner", "error")]),
        (f"{bound(OWNER, SECOND_OWNER)}\n{DENIED_OWNER}", []),
        ("issuers: [{name: c, issuer: 'http://127.0.0.1:8080', client_id: x}]", [("issuer-http", "warning")]),
        (
            "issuers: [{name: c, issuer: https://c.example, client_id: x, client_secret_env: SECRET}]",
            [("client-secret-unset", "warning")],
        ),
        (f"issuers: [{CI % 'repository'}]", []),
        (f"issuers: [{CI % 'actor'}]", [("claim-open", "warning")]),
        (f"issuers: [{CI % 'ref'}]", [("claim-open", "warning")]),
        (
            f"issuers: [{CI % 'sub'}]\n" + bound("- {group: 'ci:g', role: ws_member, scope: workspace/data}"),
            [("group-of-workloads", "warning")],
        ),
        ("plugins: {anonymous: [/]}", [("plugins-anonymous", "warning")]),
        ("plugins: {anonymous: [/status]}", []),
    ],
)  # fmt: skip
def test_what_is_found_and_what_is_not(text, expected):
    assert found(text) == expected


def test_a_secret_that_is_set_is_no_finding_and_never_shown():
    text = "issuers: [{name: c, issuer: https://c.example, client_id: x, client_secret_env: SECRET}]"
    assert findings(text + "\n" + bound(OWNER), {"SECRET": "hidden"}) == []
    assert "hidden" not in str(findings(text, {"SECRET": "hidden", "OTHER": "hidden"}))


def test_nobody_who_owns_is_a_warning_where_the_database_is_known():
    assert [(f.id, f.severity) for f in findings("")] == [("nobody-owns", "info")]
    assert [(f.id, f.severity) for f in findings("", teams=[])] == [("nobody-owns", "warning")]
    owner = Binding(user="root", role="deployment_admin", scope="deployment/prod")
    assert findings("", teams=[], bindings=[("binding 1 of the database", owner)]) == []
    elsewhere = Binding(user="root", role="deployment_admin", scope="deployment/test")
    assert [f.id for f in findings("", teams=[], bindings=[("binding 1", elsewhere)])] == ["nobody-owns"]


def test_a_team_is_known_by_the_database_or_missing_there():
    text = bound(OWNER, "- {team: core, role: ws_author, scope: workspace/data}")
    assert found(text, teams=["core"]) == []
    assert found(text, teams=["other"]) == [("team-unknown", "warning")]


def test_a_binding_of_the_database_that_a_wider_one_of_the_file_shadows_is_found():
    stored = Binding(user="root", role="ws_member", scope="workspace/data")
    (finding,) = findings(bound(OWNER), teams=[], bindings=[("binding 7 of the database", stored)])
    assert (finding.id, finding.place) == ("binding-shadowed", "binding 7 of the database")
    assert "policy.yaml:6" in finding.message


def test_the_gravest_comes_first():
    text = f"{bound(OWNER)}\nplugins: {{anonymous: [/]}}\n{DENIED_OWNER}\nroles: {{r: {{allow: ['dag:POST']}}}}"
    assert [finding.severity for finding in findings(text)] == ["error", "warning", "info"]
