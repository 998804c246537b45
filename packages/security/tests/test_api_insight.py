# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from api_fixtures import POLICY, airflow_app, airflow_with_ours, server

__all__ = ["airflow_app", "airflow_with_ours", "server"]


def test_whoami_says_who_with_which_roles(server):
    server.write_policy(POLICY + "bindings: [{team: sre, role: ws_member, scope: workspace/data}]\n")
    from tradewind.security.store import teams

    teams.create("sre")
    teams.add_member("sre", "alice")
    server.user("alice", "dag_viewer", dags={"ids": ["x"]})
    who = server.as_user("alice").get("/auth/whoami").json()
    assert (who["id"], who["kind"], who["teams"], who["scopes"]) == ("alice", "user", ["sre"], None)
    assert {(role["role"], role["subject"], role["limited"]) for role in who["roles"]} == {
        ("ws_member", "team:sre", False),
        ("dag_viewer", "user:alice", True),
    }
    assert who["session"]
    assert who["ends_at"].endswith("Z")
    assert server.with_token("alice", ["dag:GET"]).get("/auth/whoami").json()["scopes"] == ["dag:GET"]


@pytest.mark.parametrize(
    ("query", "allowed"),
    [
        ({"cell": "dag:GET"}, True),
        ({"cell": "dag.run:POST"}, False),
        ({"cell": "dag.run:POST", "dag": "sales_daily"}, True),
        ({"cell": "dag.run:POST", "dag": "other"}, False),
    ],
)
def test_everybody_is_told_why_they_may_or_may_not(server, query, allowed):
    server.user("alice", "ws_member@workspace/data")
    server.bind("alice", "dag_author", dags={"ids": ["sales_*"]})
    answer = server.as_user("alice").get("/auth/explain", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.json()["allowed"] is allowed
    assert answer.json()["because"]


def test_the_rights_of_others_are_for_who_may_read_the_policy(server):
    server.user("alice", "ws_member@workspace/data")
    server.user("admin", "deployment_admin")
    server.service("robot", "deployment_viewer")
    query = {"cell": "dag:GET", "user": "admin"}
    assert server.as_user("alice").get("/auth/explain", params=query).status_code == 403
    admin = server.as_user("admin")
    assert admin.get("/auth/explain", params={"cell": "dag:GET", "user": "alice"}).json()["allowed"] is True
    assert admin.get("/auth/explain", params={"cell": "dag:GET", "user": "robot"}).json()["allowed"] is True
    assert admin.get("/auth/explain", params={"cell": "dag:GET", "user": "nobody"}).json()["allowed"] is False


@pytest.mark.parametrize(
    "query",
    [{}, {"cell": "nothing:GET"}, {"cell": "dag:GET", "dag": "a", "pool": "b"}, {"cell": "dag:GET", "pool": "b"}],
)
def test_a_question_that_makes_no_sense_is_refused(server, query):
    server.user("alice")
    assert server.as_user("alice").get("/auth/explain", params=query).status_code == 422


def test_roles_are_listed_with_their_cells(server):
    server.write_policy(POLICY + "roles: {oncall: {allow: ['dag.run:PUT'], description: Clears runs}}\n")
    server.user("admin", "deployment_admin")
    roles = {role["name"]: role for role in server.as_user("admin").get("/auth/roles").json()["roles"]}
    assert roles["oncall"] == {
        "name": "oncall",
        "scope": "deployment",
        "description": "Clears runs",
        "cells": ["dag.run:PUT"],
    }
    assert "org_owner" in roles


def test_a_workspace_owner_sees_what_was_denied_and_others_do_not(server):
    server.user("owner", "ws_owner@workspace/data")
    server.user("alice", "ws_member@workspace/data")
    alice = server.as_user("alice")
    assert alice.post("/api/v2/pools", json={"name": "x", "slots": 1}).status_code == 403
    assert alice.get("/auth/audit").status_code == 403
    client = server.as_user("owner")
    query = {"outcome": "denied", "subject": "alice", "event": "access", "limit": 10}
    events = client.get("/auth/audit", params=query).json()["events"]
    assert [event["reason"] for event in events] == ["lacks tw.audit.read:*", "lacks pool:POST"]
    assert events[1]["path"] == "/api/v2/pools"
    assert client.get("/auth/audit", params={"limit": 1}).json()["total_entries"] == 1
    assert client.get("/auth/audit", params={"limit": 0}).status_code == 422


def test_the_policy_is_loaded_anew_on_demand_and_a_broken_one_changes_nothing(server):
    server.user("owner", "org_owner@organization/acme")
    server.user("alice", "ws_owner@workspace/data")
    client = server.as_user("owner")
    assert server.as_user("alice").post("/auth/policy/reload").status_code == 403
    assert client.post("/auth/policy/reload").json() == {"changed": False, "problem": None}
    server.policy_file.write_text(POLICY + "docs: anonymous\n")
    assert client.post("/auth/policy/reload").json() == {"changed": True, "problem": None}
    server.policy_file.write_text("version: 7\n")
    answer = client.post("/auth/policy/reload").json()
    assert answer["changed"] is False
    assert "version" in answer["problem"]
    assert client.get("/auth/whoami").status_code == 200
    assert [event["outcome"] for event in server.events("policy.reloaded")] == ["success", "success", "failure"]
