# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tradewind.security.exceptions import InvalidValueError
from tradewind.security.policy.cells import BITS, CELLS, mask_of
from tradewind.security.policy.compiler import DagFacts, compile_principal
from tradewind.security.policy.explain import explain, kind_of
from tradewind.security.policy.loader import Policy, parse
from tradewind.security.policy.schema import Binding, Deny, PolicyFile, Role
from tradewind.security.principal import Principal

PATTERNS = ["dag:GET", "dag:*", "dag.run:*", "dag.run:GET", "dag.xcom:GET", "connection:*", "variable:GET", "pool:*"]
PATTERNS += ["team:*", "view.jobs:GET", "menu.*:MENU", "tw.audit.read", "hitl.*", "asset:*", "*:GET", "*"]
NAMES = ["sales_a", "sales_b", "hr", "other"]
GLOBS = [*NAMES, "*", "sales_*", "?r"]
TAGS = ["red", "blue"]
BUNDLES = ["east", "west"]
TEAMS = ["t1", "t2"]


def lists(values, **options):
    return st.lists(st.sampled_from(values), unique=True, max_size=2, **options)


patterns = lists(PATTERNS, min_size=1)
dag_selectors = st.fixed_dictionaries(
    {"ids": lists(GLOBS), "tags": lists(TAGS), "bundles": lists(BUNDLES), "teams": lists(TEAMS)}
).filter(lambda selector: any(selector.values()))
selectors = st.fixed_dictionaries({"ids": lists(GLOBS), "teams": lists(TEAMS)}).filter(lambda s: any(s.values()))
subjects = st.sampled_from(
    [
        {"user": "alice"},
        {"user": "bob"},
        {"group": "corp:sre"},
        {"group": "corp:dev"},
        {"team": "core"},
        {"service": "ci"},
    ]
)
roles = st.sampled_from(["r0", "r1", "r2", "gone"])


@st.composite
def bindings(draw):
    scope = draw(
        st.sampled_from(["organization/o", "workspace/w", "deployment/d", "deployment/other", "team/t1", "team/t2"])
    )
    limits = {}
    if not scope.startswith("team/"):
        for key, strategy in (("dags", dag_selectors), ("connections", selectors), ("variables", selectors)):
            if draw(st.booleans()):
                limits[key] = draw(strategy)
    return Binding.model_validate({**draw(subjects), "role": draw(roles), "scope": scope, **limits})


@st.composite
def denies(draw):
    limits = {"dags": draw(dag_selectors)} if draw(st.booleans()) else {}
    return Deny.model_validate({**draw(subjects), "cells": draw(patterns), **limits})


@st.composite
def policies(draw):
    own = {f"r{number}": Role(allow=tuple(draw(patterns))) for number in range(3)}
    file = PolicyFile(
        version=1,
        organization="o",
        workspace="w",
        deployment="d",
        roles=own,
        bindings=tuple(draw(st.lists(bindings(), max_size=5))),
        deny=tuple(draw(st.lists(denies(), max_size=2))),
    )
    masks = {name: mask_of(role.allow) for name, role in own.items()}
    placed = tuple((f"policy.yaml:{number}", binding) for number, binding in enumerate(file.bindings))
    return Policy(file, own, masks, placed, {}, "policy.yaml")


principals = st.builds(
    Principal,
    id=st.sampled_from(["alice", "bob", "ci"]),
    kind=st.sampled_from(["user", "service"]),
    groups=st.frozensets(st.sampled_from(["corp:sre", "corp:dev"])),
    roles=st.frozensets(st.sampled_from(["r0", "r1"]), max_size=1),
    scopes=st.one_of(st.none(), st.frozensets(st.sampled_from(PATTERNS), max_size=3)),
)
facts = st.builds(DagFacts, tags=st.frozensets(st.sampled_from(TAGS)), bundle=st.sampled_from([None, *BUNDLES]))


def compiled_answer(principal, policy, teams, cell, name, team, known):
    """What the auth manager answers, by the masks."""
    rules = compile_principal(principal, policy.file, policy.masks, policy.bindings, teams)
    kind = kind_of(cell)
    reads = cell.endswith(":GET")
    if kind == "dag":
        if name is None:
            mask = rules.without_id if reads else rules.written_everywhere
        else:
            mask = rules.dag(name, team, lambda _: known, "version")
    elif kind == "team":
        mask = rules.base | (rules.team_cells.get(name, 0) if name else 0)
    elif kind is not None:
        if name is not None:
            mask = rules.resource(f"{kind}s", name, team)
        elif team is not None:
            mask = rules.base | rules.team_cells.get(team, 0)
        else:
            mask = rules.any_resource(f"{kind}s") if reads else rules.base
    else:
        mask = rules.base
    return bool(mask & BITS[cell])


@settings(max_examples=400, deadline=None)
@given(
    policy=policies(),
    principal=principals,
    teams=st.frozensets(st.sampled_from(["core"])),
    name=st.sampled_from([None, *NAMES]),
    team=st.sampled_from([None, *TEAMS]),
    known=facts,
)
def test_an_explanation_says_what_the_compiled_rules_decide_for_every_cell(policy, principal, teams, name, team, known):
    for cell in CELLS:
        about = (name if kind_of(cell) != "team" or name is None else team) if kind_of(cell) else None
        answer = explain(principal, policy, policy.bindings, teams, cell, name=about, team=team, facts=known)
        expected = compiled_answer(principal, policy, teams, cell, about, team, known)
        assert answer.allowed == expected, (cell, about, answer)
        assert {reason.effect for reason in answer.because} & ({"grants"} if expected else {"denies", "needs"})


DAG_PATTERNS = ["dag:GET", "dag.run:GET", "dag.run:POST", "dag.xcom:GET", "dag.*:GET"]
LIST_CELLS = ["dag:GET", "dag.run:GET", "dag.run:POST", "dag.xcom:GET"]
alices = st.fixed_dictionaries({"user": st.just("alice"), "role": st.sampled_from(["r0", "r1", "r2"])})
places = st.one_of(
    st.just({"scope": "deployment/d"}),
    st.just({"scope": "team/t1"}),
    st.fixed_dictionaries({"scope": st.just("deployment/d"), "dags": dag_selectors}),
)


@settings(max_examples=300, deadline=None)
@given(
    allowed=st.lists(lists(DAG_PATTERNS, min_size=1), min_size=3, max_size=3),
    bound=st.lists(st.tuples(alices, places), min_size=1, max_size=3),
    denied=st.lists(st.tuples(lists(DAG_PATTERNS, min_size=1), dag_selectors), max_size=2),
    scopes=st.one_of(st.none(), st.frozensets(st.sampled_from(DAG_PATTERNS))),
)
@example(allowed=[["dag:GET", "dag.run:GET"], ["dag:GET"], ["dag:GET"]], denied=[], scopes=None, bound=[
    ({"user": "alice", "role": "r0"}, {"scope": "deployment/d", "dags": {"ids": ["hr"]}}),
    ({"user": "alice", "role": "r1"}, {"scope": "deployment/d", "dags": {"ids": ["other"]}}),
])  # fmt: skip
def test_an_explanation_of_a_list_of_dags_is_what_the_compiled_rules_decide(allowed, bound, denied, scopes):
    own = {f"r{number}": Role(allow=tuple(cells)) for number, cells in enumerate(allowed)}
    file = PolicyFile(
        version=1,
        deployment="d",
        roles=own,
        deny=tuple(Deny.model_validate({"user": "alice", "cells": cells, "dags": dags}) for cells, dags in denied),
    )
    placed = tuple(
        (f"policy.yaml:{number}", Binding.model_validate({**who, **where})) for number, (who, where) in enumerate(bound)
    )
    policy = Policy(file, own, {name: mask_of(role.allow) for name, role in own.items()}, placed, {}, "policy.yaml")
    principal = Principal("alice", scopes=scopes)
    for cell in LIST_CELLS:
        answer = explain(principal, policy, placed, frozenset(), cell)
        expected = compiled_answer(principal, policy, frozenset(), cell, None, None, DagFacts())
        assert answer.allowed == expected, (cell, answer)


POLICY = """\
version: 1
deployment: prod
issuers:
  - {name: corp, issuer: https://idp.example, client_id: x}
roles:
  sales_runner: {scope: dag, allow: ["dag:GET", "dag.run:*"]}
bindings:
  - {user: alice, role: ws_member, scope: workspace/default}
  - {group: "corp:sales", role: sales_runner, scope: deployment/prod, dags: {ids: ["sales_*"]}}
  - {user: alice, role: deployment_admin, scope: deployment/other}
  - {user: bob, role: deployment_admin, scope: deployment/prod}
deny:
  - {user: bob, cells: ["connection:*"]}
"""


def ask(user, cell, **resource):
    policy = parse(POLICY, "policy.yaml")
    groups = frozenset({"corp:sales"}) if user == "alice" else frozenset()
    return explain(Principal(user, groups=groups), policy, policy.bindings, frozenset(), cell, **resource)


def test_a_grant_is_explained_by_the_line_that_gives_it():
    answer = ask("alice", "dag.run:POST", name="sales_eu")
    assert answer.allowed
    (reason,) = answer.because
    assert reason.source == "policy.yaml:9"
    assert (reason.subject, reason.role, reason.effect) == ("group:corp:sales", "sales_runner", "grants")
    assert "sales_*" in reason.detail


def test_a_refusal_names_what_grants_it_elsewhere_and_what_would_grant_it():
    answer = ask("alice", "dag.run:POST", name="hr")
    assert not answer.allowed
    effects = [(reason.effect, reason.source) for reason in answer.because]
    assert effects[:2] == [("limits", "policy.yaml:9"), ("limits", "policy.yaml:10")]
    assert "not for this deployment" in answer.because[1].detail
    needed = answer.because[-1]
    assert needed.effect == "needs"
    assert "dag_author" in needed.detail
    assert "sales_runner" in needed.detail
    assert "dag_viewer" not in needed.detail


def test_a_deny_comes_before_the_grants_that_it_beats():
    answer = ask("bob", "connection:GET", name="warehouse")
    assert not answer.allowed
    assert [(reason.effect, reason.source) for reason in answer.because] == [
        ("denies", "policy.yaml:13"),
        ("grants", "policy.yaml:11"),
    ]


def test_a_token_of_an_owner_is_limited_by_its_scopes():
    policy = parse(POLICY, "policy.yaml")
    token = Principal("bob", token="1" * 16, scopes=frozenset({"dag:GET"}))
    answer = explain(token, policy, policy.bindings, frozenset(), "pool:GET")
    assert not answer.allowed
    assert answer.because[0].effect == "denies"
    assert "dag:GET" in answer.because[0].detail
    assert explain(token, policy, policy.bindings, frozenset(), "dag:GET").allowed


def test_a_cell_that_no_role_grants_says_so():
    policy = parse("version: 1\n")
    masks = {name: mask & ~BITS["dag:POST"] for name, mask in policy.masks.items()}
    bare = Policy(policy.file, policy.roles, masks, (), {})
    (reason,) = explain(Principal("alice"), bare, (), frozenset(), "dag:POST").because
    assert "none does" in reason.detail


@pytest.mark.parametrize("cell", ["dag.rum:POST", "dag.*:GET", "", "x" * 1000])
def test_an_unknown_cell_is_refused_and_not_answered_with_no(cell):
    with pytest.raises(InvalidValueError, match="expected one"):
        ask("alice", cell)


def test_a_resource_of_another_kind_is_refused():
    with pytest.raises(InvalidValueError, match="not about a dag"):
        ask("alice", "connection:GET", kind="dag", name="sales_eu")


@given(st.text(max_size=30))
@example("dag.run:POST")
def test_the_kind_of_whatever_text_is_one_of_few(text):
    assert kind_of(text) in {None, "dag", "connection", "variable", "pool", "team"}
