# SPDX-License-Identifier: Apache-2.0
"""Bindings and teams."""

from __future__ import annotations

import pytest

from tradewind.security.exceptions import ConflictError, InvalidValueError, NotFoundError
from tradewind.security.policy.schema import Binding
from tradewind.security.store import bindings, teams

ROLE = {"role": "ws_author", "scope": "workspace/data"}
SELECTORS = {
    "dags": {"ids": ["sales_*"], "tags": ["team:sales"], "bundles": ["sales"], "teams": ["sales"]},
    "connections": {"ids": ["sales_*"]},
    "variables": {"teams": ["sales"]},
    "pools": {"ids": ["default_pool"]},
}


@pytest.mark.parametrize(
    "values",
    [
        {"user": "alice@acme.example", **ROLE},
        {"group": "corp:sre", **ROLE},
        {"team": "sales", **ROLE, **SELECTORS},
        {"service": "ci", "role": "ci_deployer", "scope": "deployment/prod"},
    ],
)
def test_a_binding_is_read_back_as_it_was_made(store, values):
    made = bindings.create(values, created_by="admin")
    assert made.binding == Binding.model_validate(values)
    assert bindings.list_bindings() == [made]
    assert made.created_by == "admin"


def test_a_binding_that_was_checked_before_can_be_given_as_it_is(store):
    binding = bindings.parse({"team": "sales", **ROLE, **SELECTORS})
    assert bindings.create(binding, created_by="admin").binding == binding


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"user": "alice", "role": "ws_author", "scope": "workspace"}, "scope.*'workspace'"),
        ({"user": "alice", "scope": "workspace/data"}, "role"),
        ({"user": "alice", "team": "sales", **ROLE}, "exactly one"),
        (ROLE, "exactly one"),
        ({"group": "sre", **ROLE}, "group.*'sre'"),
        ({"user": "alice", **ROLE, "dag": {"ids": ["a"]}}, "dag"),
        ({"user": "alice", **ROLE, "dags": {}}, "dags"),
        ({"user": "alice", **ROLE, "dags": {"ids": ["[ab]"]}}, r"dags\.ids\.0"),
        ({"user": "alice\x00", **ROLE}, "user"),
        ({"user": " alice", **ROLE}, "user"),
        ({"user": "alice", "role": "ws_author", "scope": "workspace/" + "x" * 250}, "scope"),
        ({"user": "alice", **ROLE, "dags": {"ids": ["x" * 250] * 300}}, "selectors"),
    ],
)
def test_a_binding_that_can_not_be_is_refused_with_what_is_wrong(store, values, named):
    with pytest.raises(InvalidValueError, match=named):
        bindings.create(values, created_by="admin")
    assert bindings.list_bindings() == []


def test_the_same_binding_is_not_made_twice_but_a_narrower_one_is(store):
    first = bindings.create({"user": "alice", **ROLE}, created_by="admin")
    with pytest.raises(ConflictError, match=f"binding {first.id}"):
        bindings.create({"user": "alice", **ROLE}, created_by="bob")
    bindings.create({"user": "alice", **ROLE, "dags": {"ids": ["a"]}}, created_by="admin")
    assert len(bindings.list_bindings()) == 2


def test_bindings_are_listed_by_whom_they_are_for(store):
    for values in ({"user": "a"}, {"team": "a"}, {"user": "b"}):
        bindings.create({**values, **ROLE}, created_by="admin")
    assert [record.id for record in bindings.list_bindings("user")] == [1, 3]
    assert [record.id for record in bindings.list_bindings("user", "a")] == [1]
    assert [record.id for record in bindings.list_bindings(subject="a")] == [1, 2]
    assert bindings.list_bindings(subject="\x00") == []


def test_an_id_is_not_used_again(store):
    first = bindings.create({"user": "alice", **ROLE}, created_by="admin")
    bindings.delete(first.id)
    assert bindings.create({"user": "alice", **ROLE}, created_by="admin").id > first.id


@pytest.mark.parametrize("binding_id", [0, -1, 7, 2**31, 2**70])
def test_an_unknown_binding_can_not_be_deleted(store, binding_id):
    with pytest.raises(NotFoundError, match=str(binding_id)):
        bindings.delete(binding_id)


def test_teams_have_members_that_come_and_go(store):
    teams.create("sales")
    teams.create("data")
    for user_id in ("alice", "bob", "alice"):
        teams.add_member("sales", user_id)
    assert [(team.name, team.members) for team in teams.list_teams()] == [("data", set()), ("sales", {"alice", "bob"})]
    teams.remove_member("sales", "alice")
    assert teams.list_teams()[1].members == {"bob"}
    with pytest.raises(NotFoundError, match="alice"):
        teams.remove_member("sales", "alice")
    with pytest.raises(ConflictError, match="sales"):
        teams.create("sales")


def test_a_team_of_the_name_of_a_deleted_one_inherits_nothing(store):
    teams.create("sales")
    teams.add_member("sales", "alice")
    bindings.create({"team": "sales", **ROLE}, created_by="admin")
    kept = bindings.create({"user": "sales", **ROLE}, created_by="admin")
    teams.delete("sales")
    teams.create("sales")
    assert teams.list_teams()[0].members == set()
    assert bindings.list_bindings() == [kept]


@pytest.mark.parametrize("name", ["nothing", "", "\x00"])
def test_an_unknown_team_can_not_be_changed(store, name):
    for change in (teams.delete, lambda team: teams.add_member(team, "alice")):
        with pytest.raises(NotFoundError):
            change(name)


@pytest.mark.parametrize("bad", ["", "a\nb", " a", "x" * 251])
def test_a_name_that_can_not_be_stored_is_refused(store, bad):
    teams.create("sales")
    with pytest.raises(InvalidValueError):
        teams.create(bad)
    with pytest.raises(InvalidValueError):
        teams.add_member("sales", bad)
