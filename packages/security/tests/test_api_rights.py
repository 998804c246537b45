# SPDX-License-Identifier: Apache-2.0
"""Nobody gets more by giving: bindings, tokens, users and teams against every way up that we could think of."""

from __future__ import annotations

import shutil

import pytest
from api_fixtures import PASSWORD, add_bindings, add_user, airflow_app, airflow_with_ours, serving
from store_fixtures import using_database

from tradewind.security.principal import Principal
from tradewind.security.store import bindings, sessions, teams, tokens

__all__ = ["airflow_app", "airflow_with_ours"]

POLICY = """
version: 1
organization: acme
workspace: data
deployment: prod
roles:
  members_manager: {scope: organization, allow: [tw.org.members.manage, tw.team.manage, "dag:GET"]}
  assigner: {scope: deployment, allow: [tw.role.assign, "dag:GET", "connection:GET"]}
  token_maker: {scope: deployment, allow: [tw.token.deployment.manage, tw.token.self.manage, "dag:GET"]}
  everything: {scope: deployment, allow: ["*:*"]}
  reader: {scope: deployment, allow: ["dag:GET"]}
bindings:
  - {team: admins, role: org_owner, scope: organization/acme}
  - {user: root@acme.example, role: org_owner, scope: organization/acme}
deny:
  - {team: contractors, cells: ["connection:*"]}
  - {user: halved, cells: ["variable:*"]}
"""


@pytest.fixture(scope="session")
def populated(airflow_with_ours, tmp_path_factory):
    path = tmp_path_factory.mktemp("populated") / "airflow.db"
    shutil.copy(airflow_with_ours, path)
    with using_database(f"sqlite:///{path}"):
        add_user("owner", "org_owner@organization/acme")
        add_user("ws_owner", "ws_owner@workspace/data")
        add_user("admin", "deployment_admin")
        add_user("assigner", "assigner")
        add_user("manager", "members_manager@organization/acme")
        add_user("token_maker", "token_maker")
        add_user("halved", "org_owner@organization/acme")
        add_user("reader", "reader")
        for team in ("admins", "contractors", "readers"):
            teams.create(team)
        add_bindings("readers", "reader", subject="team")
    return path


@pytest.fixture
def world(airflow_app, populated, tmp_path, monkeypatch):
    with serving(airflow_app, populated, tmp_path, monkeypatch, POLICY) as running:
        yield running


@pytest.mark.parametrize(
    ("giver", "role", "scope", "more", "status"),
    [
        ("owner", "org_owner", "organization/acme", {}, 201),
        ("owner", "everything", "deployment/prod", {}, 201),
        ("ws_owner", "ws_author", "workspace/data", {}, 201),
        ("ws_owner", "ws_owner", "workspace/data", {}, 201),
        ("ws_owner", "org_owner", "organization/acme", {}, 403),
        ("ws_owner", "deployment_admin", "deployment/prod", {}, 201),
        ("admin", "deployment_operator", "deployment/prod", {}, 201),
        ("admin", "ws_owner", "workspace/data", {}, 403),
        ("admin", "everything", "deployment/prod", {}, 403),
        ("assigner", "reader", "deployment/prod", {}, 201),
        ("assigner", "deployment_viewer", "deployment/prod", {}, 403),
        ("assigner", "dag_author", "deployment/prod", {"dags": {"ids": ["x"]}}, 403),
        ("assigner", "members_manager", "organization/acme", {}, 403),
        ("halved", "org_owner", "organization/acme", {}, 403),
        ("halved", "deployment_operator", "deployment/prod", {}, 403),
        ("halved", "reader", "deployment/prod", {}, 201),
        ("reader", "reader", "deployment/prod", {}, 403),
        ("manager", "reader", "deployment/prod", {}, 403),
        ("owner", "org_owner", "organization/other", {}, 422),
        ("owner", "deployment_viewer", "deployment/other", {}, 422),
        ("owner", "no_such_role", "deployment/prod", {}, 422),
        ("owner", "ws_author", "team/sales", {}, 422),
        ("owner", "dag_viewer", "deployment/prod", {}, 422),
        ("owner", "dag_viewer", "deployment/prod", {"dags": {"ids": ["[a]"]}}, 422),
    ],
)
def test_one_gives_roles_that_one_has(world, giver, role, scope, more, status):
    body = {"user": "somebody", "role": role, "scope": scope, **more}
    before = len(bindings.list_bindings())
    answer = world.as_user(giver).post("/auth/bindings", json=body)
    assert answer.status_code == status, answer.text
    assert len(bindings.list_bindings()) - before == (status == 201)
    if status == 201:
        shown = {key: answer.json()[key] for key in ("user", "role", "scope")}
        assert shown == {"user": "somebody", "role": role, "scope": scope}


def test_a_binding_names_a_group_of_a_known_issuer_and_one_subject(world):
    client = world.as_user("owner")
    body = {"group": "corp:sre", "role": "reader", "scope": "deployment/prod"}
    assert client.post("/auth/bindings", json=body).status_code == 422
    assert client.post("/auth/bindings", json={**body, "user": "x"}).status_code == 422
    assert client.post("/auth/bindings", json={"role": "reader", "scope": "deployment/prod"}).status_code == 422
    assert client.post("/auth/bindings", json={**body, "group": None, "user": "x", "more": 1}).status_code == 422


def test_one_takes_away_what_one_could_give(world):
    [of_owner] = bindings.list_bindings("user", "owner")
    [of_reader] = bindings.list_bindings("user", "reader")
    client = world.as_user("assigner")
    assert client.delete(f"/auth/bindings/{of_owner.id}").status_code == 403
    assert client.delete(f"/auth/bindings/{of_reader.id}").status_code == 204
    assert client.delete(f"/auth/bindings/{of_reader.id}").status_code == 404
    assert world.as_user("owner").get("/auth/whoami").json()["roles"][0]["role"] == "org_owner"


def test_the_same_binding_is_not_made_twice(world):
    client = world.as_user("owner")
    body = {"user": "x", "role": "reader", "scope": "deployment/prod"}
    assert [client.post("/auth/bindings", json=body).status_code for _ in range(2)] == [201, 409]


def test_bindings_of_the_file_are_listed_with_their_place_and_stay(world):
    found = world.as_user("admin").get("/auth/bindings").json()["bindings"]
    fixed = [binding for binding in found if binding["id"] is None]
    assert [binding["role"] for binding in fixed] == ["org_owner", "org_owner"]
    assert all("policy.yaml:" in binding["place"] for binding in fixed)
    assert {"owner", "reader"} <= {binding["user"] for binding in found if binding["id"]}


def test_an_event_says_who_gave_what_to_whom(world):
    world.as_user("owner").post("/auth/bindings", json={"user": "x", "role": "reader", "scope": "deployment/prod"})
    [event] = world.events("binding.created")
    assert event["subjectId"] == "owner"
    assert event["path"] == "/auth/bindings"
    assert event["details"]["says"] == {"user": "x", "role": "reader", "scope": "deployment/prod"}


def new_token(client, **body):
    return client.post("/auth/tokens", json={"name": "x", "expires_in": 3600, **body})


def bearer(world, answer):
    assert answer.status_code == 201, answer.text
    return world.client(headers={"Authorization": f"Bearer {answer.json()['token']}"})


def test_a_token_is_shown_once_and_is_its_owner(world):
    client = world.as_user("admin")
    answer = new_token(client, name="ci")
    made = bearer(world, answer)
    assert answer.headers["cache-control"] == "no-store"
    assert {"id", "name", "token", "expires_at", "scopes"} <= set(answer.json())
    assert made.get("/auth/whoami").json()["id"] == "admin"
    secret = answer.json()["token"]
    assert secret not in client.get("/auth/tokens").text
    assert secret not in str(world.events())
    assert answer.json()["id"] in client.get("/auth/tokens").text
    assert client.delete(f"/auth/tokens/{answer.json()['id']}").status_code == 204
    assert made.get("/auth/whoami").status_code == 401
    assert [event["event"] for event in world.events() if event["event"].startswith("token.")] == [
        "token.created",
        "token.revoked",
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"expires_in": 59},
        {"expires_in": 367 * 86400},
        {"expires_in": None},
        {"scopes": []},
        {"scopes": ["nothing:GET"]},
        {"scopes": "dag:GET"},
        {"name": ""},
        {"name": "a\x00b"},
        {"owner": "nobody"},
        {"more": 1},
    ],
)
def test_a_token_that_makes_no_sense_is_not_made(world, body):
    assert new_token(world.as_user("owner"), **body).status_code == 422
    assert tokens.list_tokens("owner") == []


@pytest.mark.parametrize(
    ("parent", "child", "status"),
    [
        (None, None, 403),
        (None, ["dag:GET"], 403),
        (["dag:GET"], None, 403),
        (["tw.token.self.manage"], None, 201),
        (["tw.token.self.manage", "dag:*"], ["dag:GET"], 201),
        (["tw.token.self.manage", "dag:GET"], ["dag:*"], 403),
        (["tw.token.self.manage", "dag:GET"], ["connection:GET"], 403),
        (["*:*"], ["*:*"], 201),
    ],
)
def test_a_token_makes_none_with_more_than_its_own(world, parent, child, status):
    client = world.with_token("owner", parent)
    answer = new_token(client, **({"scopes": child} if child else {}))
    assert answer.status_code == status, answer.text
    if status == 201:
        assert set(answer.json()["scopes"]) == set(child or parent)


@pytest.mark.parametrize(
    ("maker", "owner", "scopes", "status"),
    [
        ("owner", "robot", None, 201),
        ("owner", "ws_owner", None, 201),
        ("token_maker", "weak_robot", None, 201),
        ("token_maker", "robot", None, 403),
        ("token_maker", "robot", ["dag:GET"], 201),
        ("token_maker", "robot", ["dag:PUT"], 403),
        ("token_maker", "robot", ["dag:*"], 403),
        ("token_maker", "owner", None, 403),
        ("reader", "weak_robot", None, 403),
        ("assigner", "weak_robot", ["dag:GET"], 403),
        ("halved", "robot", ["variable:GET"], 403),
    ],
)
def test_a_token_for_somebody_else_gives_the_maker_nothing_new(world, maker, owner, scopes, status):
    world.service("robot", "deployment_operator")
    world.service("weak_robot", "reader")
    answer = new_token(world.as_user(maker), owner=owner, **({"scopes": scopes} if scopes else {}))
    assert answer.status_code == status, answer.text
    if status == 201:
        who = bearer(world, answer).get("/auth/whoami").json()
        assert who["id"] == owner
        assert who["kind"] == ("service" if "robot" in owner else "user")


def test_a_narrow_token_can_not_be_made_wide_by_rotation(world):
    wide, _ = tokens.create("owner", "wide", None, expires_in=3600)
    narrow = world.with_token("owner", ["tw.token.self.manage", "dag:GET"])
    assert narrow.post(f"/auth/tokens/{wide.id}/rotate", json={}).status_code == 403
    [own] = [token for token in tokens.list_tokens("owner") if token.id != wide.id]
    answer = narrow.post(f"/auth/tokens/{own.id}/rotate", json={"overlap": 60})
    assert answer.status_code == 201
    assert set(answer.json()["scopes"]) == {"tw.token.self.manage", "dag:GET"}
    assert narrow.get("/auth/whoami").status_code == 200


def test_rotation_of_somebody_elses_token_gives_nothing_new(world):
    world.service("robot", "deployment_operator")
    record, _ = tokens.create("robot", "x", None, expires_in=3600)
    limited, _ = tokens.create("robot", "y", ["dag:GET"], expires_in=3600)
    client = world.as_user("token_maker")
    assert client.post(f"/auth/tokens/{record.id}/rotate").status_code == 403
    assert client.post(f"/auth/tokens/{limited.id}/rotate").status_code == 201
    assert world.as_user("admin").post(f"/auth/tokens/{record.id}/rotate").status_code == 201


def test_rotation_gives_nobody_the_groups_of_who_had_the_name_before(world):
    issuer = "issuers: [{name: corp, issuer: 'https://corp.example', client_id: x}]\n"
    world.write_policy(POLICY.replace("roles:\n", issuer + "roles:\n", 1))
    world.bind("corp:sre", "org_owner@organization/acme", subject="group")
    record, text = tokens.create("alice@acme.example", "x", None, expires_in=3600, groups=["corp:sre"])
    program = world.client(headers={"Authorization": f"Bearer {text}"})
    assert program.get("/auth/bindings").status_code == 200
    world.bind("alice@acme.example", "org_member@organization/acme")
    body = {"id": "alice@acme.example", "password": PASSWORD, "must_change_password": False}
    assert world.as_user("owner").post("/auth/users", json=body).status_code == 201
    stranger = world.as_user("alice@acme.example")
    assert stranger.post(f"/auth/tokens/{record.id}/rotate", json={}).status_code == 403
    assert program.post(f"/auth/tokens/{record.id}/rotate", json={}).status_code == 201


def test_rotation_ends_the_old_token_at_once_or_after_the_overlap(world):
    client = world.as_user("admin")
    first = new_token(client)
    old = bearer(world, first)
    assert old.get("/auth/whoami").status_code == 200
    second = client.post(f"/auth/tokens/{first.json()['id']}/rotate", json={})
    assert old.get("/auth/whoami").status_code == 401
    new = bearer(world, second)
    third = client.post(f"/auth/tokens/{second.json()['id']}/rotate", json={"overlap": 3600})
    assert third.status_code == 201
    assert new.get("/auth/whoami").status_code == 200
    assert client.post(f"/auth/tokens/{second.json()['id']}/rotate", json={}).status_code == 409


def test_tokens_of_others_are_neither_seen_nor_ended(world):
    record, _ = tokens.create("owner", "of the owner", None, expires_in=3600)
    server = world.as_user("manager")
    world.bind("manager", "org_member@organization/acme")
    assert "of the owner" not in server.get("/auth/tokens").text
    assert server.get("/auth/tokens", params={"owner": "owner"}).status_code == 403
    assert server.delete(f"/auth/tokens/{record.id}").status_code == 404
    assert server.post(f"/auth/tokens/{record.id}/rotate", json={}).status_code == 404
    admin = world.as_user("token_maker")
    assert [token["name"] for token in admin.get("/auth/tokens", params={"owner": "owner"}).json()["tokens"]] == [
        "of the owner"
    ]
    assert admin.delete(f"/auth/tokens/{record.id}").status_code == 204


def test_who_only_has_the_name_of_a_service_account_does_not_become_it(world):
    world.service("etl", "deployment_operator")
    world.bind("etl", "reader", "org_member@organization/acme")
    from dataclasses import replace
    from datetime import datetime, timedelta, timezone

    ends = datetime.now(timezone.utc) + timedelta(hours=1)
    session = sessions.start("etl", ends_at=ends, issuer="corp")
    who = replace(Principal("etl"), session=session, ends_at=ends.timestamp())
    client = world.client(headers={"Authorization": f"Bearer {world.manager.generate_jwt(who)}"})
    assert client.get("/auth/whoami").json()["kind"] == "user"
    assert new_token(client).status_code == 403
    record, _ = tokens.create("etl", "of the service", None, expires_in=3600)
    assert client.get("/auth/tokens").json()["tokens"] == []
    assert client.delete(f"/auth/tokens/{record.id}").status_code == 404
    assert client.post(f"/auth/tokens/{record.id}/rotate", json={}).status_code == 404


@pytest.mark.parametrize(
    ("maker", "user", "status"),
    [
        ("owner", "new", 201),
        ("manager", "new", 201),
        # The policy's file makes this person of the identity provider an owner: a local password would be theirs.
        ("manager", "root@acme.example", 403),
        ("owner", "root@acme.example", 201),
        ("ws_owner", "new", 403),
        ("owner", "reader", 409),
        ("owner", " x ", 422),
    ],
)
def test_a_user_is_made_by_who_has_what_the_user_will_have(world, maker, user, status):
    answer = world.as_user(maker).post("/auth/users", json={"id": user, "password": "a good passphrase"})
    assert answer.status_code == status, answer.text
    assert "a good passphrase" not in answer.text
    if status == 201:
        assert answer.json()["must_change_password"] is True


@pytest.mark.parametrize("change", [{"password": "a good passphrase"}, {"disabled": True}])
@pytest.mark.parametrize(
    ("maker", "user", "status"),
    [
        ("owner", "ws_owner", 200),
        ("manager", "reader", 200),
        ("manager", "owner", 403),
        ("manager", "assigner", 403),
        ("owner", "owner", 409),
        ("owner", "nobody", 404),
    ],
)
def test_a_user_is_changed_by_who_has_what_the_user_has(world, maker, user, status, change):
    answer = world.as_user(maker).patch(f"/auth/users/{user}", json=change)
    assert answer.status_code == status, answer.text
    login = world.client().post("/auth/token", json={"username": user, "password": PASSWORD})
    assert (login.status_code == 201) == (status != 200 and user != "nobody")


def test_a_disabled_user_comes_back(world):
    client = world.as_user("owner")
    assert client.patch("/auth/users/reader", json={"disabled": True}).json()["disabled"] is True
    assert client.patch("/auth/users/reader", json={"disabled": False}).json()["disabled"] is False
    assert world.as_user("reader").get("/auth/whoami").status_code == 200
    assert {user["id"] for user in client.get("/auth/users").json()["users"]} >= {"reader", "owner"}


@pytest.mark.parametrize(
    ("maker", "team", "status"),
    [
        ("owner", "admins", 204),
        ("manager", "readers", 204),
        ("manager", "admins", 403),
        ("ws_owner", "readers", 403),
        ("owner", "no team", 404),
    ],
)
def test_a_member_is_added_by_who_has_what_the_team_has(world, maker, team, status):
    answer = world.as_user(maker).put(f"/auth/teams/{team}/members/manager")
    assert answer.status_code == status, answer.text
    members = {member for found in teams.list_teams() for member in found.members}
    assert members == ({"manager"} if status == 204 else set())


def test_nobody_escapes_what_is_denied_to_a_team(world):
    teams.add_member("contractors", "manager")
    world.settle()
    client = world.as_user("manager")
    assert client.delete("/auth/teams/contractors/members/manager").status_code == 403
    assert client.delete("/auth/teams/contractors").status_code == 403
    assert world.as_user("owner").delete("/auth/teams/contractors/members/manager").status_code == 204


def test_teams_are_made_listed_and_deleted(world):
    client = world.as_user("manager")
    assert client.post("/auth/teams", json={"name": "new"}).status_code == 201
    assert client.post("/auth/teams", json={"name": "new"}).status_code == 409
    assert client.put("/auth/teams/new/members/x@y").status_code == 204
    [team] = [team for team in client.get("/auth/teams").json()["teams"] if team["name"] == "new"]
    assert team["members"] == ["x@y"]
    assert client.delete("/auth/teams/new").status_code == 204
    assert client.delete("/auth/teams/new").status_code == 404
    kinds = [event["event"] for event in world.events() if event["event"].startswith("team.")]
    assert kinds == ["team.created", "team.member_added", "team.deleted"]
