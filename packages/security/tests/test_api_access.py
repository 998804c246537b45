# SPDX-License-Identifier: Apache-2.0
"""Who gets into which route, for every route that the app has."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from api_fixtures import POLICY, airflow_app, airflow_with_ours, server
from fastapi.routing import APIRoute
from starlette.routing import Mount

from tradewind.security.api.app import PUBLIC
from tradewind.security.store import sessions, tokens, users

__all__ = ["airflow_app", "airflow_with_ours", "server"]

MALFORMED = {"content": b"{", "headers": {"Content-Type": "application/json"}}
VALUES = {"token_id": "0" * 16, "session_id": "0" * 32, "binding_id": "1", "issuer": "corp"}


def routes(server):
    [mounted] = [route.app for route in server.app.routes if isinstance(route, Mount) and route.path == "/auth"]
    for route in mounted.routes:
        assert isinstance(route, (APIRoute, Mount)), route
        if isinstance(route, APIRoute):
            for method in route.methods:
                path = re.sub(r"\{(\w+)\}", lambda found: VALUES.get(found[1], "x"), route.path)
                yield method, route.path, f"/auth{path}", getattr(route.endpoint, "cell", None)


def is_page(template):
    return template.startswith("/account")


def test_nobody_gets_in_without_a_credential_but_to_log_in(server):
    client = server.client()
    public = set()
    for method, template, path, _ in routes(server):
        answer = client.request(method, path, **MALFORMED)
        if answer.status_code == 401 and answer.headers.get("www-authenticate") == "Bearer":
            assert answer.json() == {"detail": "Not authenticated"}
        elif is_page(template) and method == "GET":
            assert urlsplit(answer.headers["location"]).path == "/auth/login"
            assert parse_qs(urlsplit(answer.headers["location"]).query) == {"next": [path]}
        else:
            public.add((method, template))
        assert answer.headers["cache-control"] == "no-store"
    assert public | {("GET", "/callback"), ("POST", "/login")} == PUBLIC


@pytest.mark.parametrize("credential", ["twr_0123456789abcdef_x_y", "a.b.c", "x" * 20_000, "\xe4"])
def test_no_other_credential_gets_in(server, credential):
    for method, template, path, _ in routes(server):
        if (method, template) in PUBLIC:
            continue
        answer = server.client().request(
            method, path, content=b"{", headers={"Authorization": f"Bearer {credential}".encode("latin-1")}
        )
        assert answer.status_code == 401 or (is_page(template) and method == "GET" and answer.status_code == 303)


def test_nobody_without_roles_gets_past_a_cell_and_the_body_is_not_looked_at(server):
    server.user("nobody")
    client = server.as_user("nobody")
    refused = set()
    for method, template, path, cell in routes(server):
        if (method, template) in PUBLIC:
            continue
        answer = client.request(method, path, **MALFORMED)
        assert (answer.status_code == 403) == (cell is not None) or is_page(template), (method, template)
        if cell:
            refused.add(template)
    assert {"/tokens", "/bindings", "/users", "/teams", "/roles", "/audit", "/policy/reload"} <= refused
    denied = [event for event in server.events("access") if event["status"] == 403]
    assert {"lacks tw.audit.read:*", "lacks tw.role.assign:*"} <= {event["reason"] for event in denied}
    assert {event["subjectId"] for event in denied} == {"nobody"}


def test_who_may_gets_past_it_and_a_malformed_body_is_found_then(server):
    server.write_policy(POLICY + "bindings: [{user: owner, role: org_owner, scope: organization/acme}]\n")
    server.user("owner")
    client = server.as_user("owner")
    for method, template, path, cell in routes(server):
        if (method, template) in PUBLIC or is_page(template):
            continue
        answer = client.request(method, path, **MALFORMED)
        assert answer.status_code < 500, (method, template, answer.text)
        assert cell is None or answer.status_code not in {401, 403}, (method, template, answer.text)
        if method in {"POST", "PATCH"} and template not in {"/policy/reload"}:
            assert answer.status_code == 422, (method, template, answer.text)


def test_a_large_body_is_refused(server):
    server.user("owner", "org_owner@organization/acme")
    content = b'{"name": "' + b"x" * 100_000 + b'"}'
    headers = {"Content-Type": "application/json"}
    assert server.as_user("owner").post("/auth/teams", content=content, headers=headers).status_code == 413
    assert server.client().post("/auth/teams", content=content, headers=headers).status_code == 401


@pytest.mark.parametrize("path", ["/auth/docs", "/auth/redoc", "/auth/openapi.json"])
def test_the_description_is_for_those_who_are_known(server, path):
    assert server.client().get(path).status_code in {401, 404}


def test_the_description_has_every_route_that_programs_use(server):
    server.user("nobody")
    described = server.as_user("nobody").get("/auth/openapi.json").json()["paths"]
    expected = {"/token", "/token/cli", "/tokens", "/tokens/{token_id}", "/bindings", "/explain", "/audit", "/whoami"}
    assert expected <= set(described)


def test_an_ended_session_and_a_disabled_user_get_nowhere(server):
    server.user("alice")
    server.user("bob")
    alice, bob = server.as_user("alice"), server.as_user("bob")
    assert alice.get("/auth/whoami").status_code == bob.get("/auth/whoami").status_code == 200
    sessions.revoke_user("alice")
    users.disable("bob")
    assert alice.get("/auth/whoami").status_code == bob.get("/auth/whoami").status_code == 401


def test_a_database_that_can_not_be_used_lets_nobody_in(server):
    from airflow.utils.session import create_session
    from sqlalchemy import text

    server.user("alice")
    client = server.as_user("alice")
    with create_session(scoped=False) as session:
        for table in ("tw_session", "tw_user"):
            session.execute(text(f"DROP TABLE {table}"))
    for answer in (
        server.client().post("/auth/token", json={"username": "alice", "password": "x"}),
        client.get("/auth/sessions"),
    ):
        assert (answer.status_code, answer.json()) == (503, {"detail": "Service unavailable"})


def test_the_account_page_shows_ones_own_and_works_without_scripts(server):
    server.user("alice", "ws_member@workspace/data")
    server.user("bob", "ws_member@workspace/data")
    tokens.create("bob", "of bob", expires_in=3600)
    client = server.browser("alice")
    page = client.get("/auth/account").text
    assert "ws_member" in page
    assert "of bob" not in page
    made = client.post("/auth/account/tokens", data={"name": "ci", "days": "7", "scopes": "dag:GET dag.run:*"})
    assert made.status_code == 201
    [token] = re.findall(r"twr_[0-9a-f]{16}_[\w-]{43}_[0-9a-f]{8}", made.text)
    assert token not in client.get("/auth/account").text
    [record] = tokens.list_tokens("alice")
    assert record.scopes == {"dag:GET", "dag.run:*"}
    assert server.client(headers={"Authorization": f"Bearer {token}"}).get("/auth/whoami").json()["id"] == "alice"
    assert client.post(f"/auth/account/tokens/{record.id}/revoke").headers["location"] == "/auth/account"
    assert tokens.list_tokens("alice")[0].revoked_at is not None
    [theirs] = tokens.list_tokens("bob")
    assert client.post(f"/auth/account/tokens/{theirs.id}/revoke").status_code == 404
    assert tokens.list_tokens("bob")[0].revoked_at is None


@pytest.mark.parametrize(
    "form",
    [
        {"name": "", "days": "1"},
        {"name": "x", "days": "0"},
        {"name": "x", "days": "400"},
        {"name": "x", "days": "soon"},
        {"name": "x", "days": "9" * 5000},
        {"name": "x", "days": "1", "scopes": "everything"},
    ],
)
def test_a_malformed_token_is_refused_on_the_page(server, form):
    server.user("alice", "ws_member@workspace/data")
    answer = server.browser("alice").post("/auth/account/tokens", data=form)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert tokens.list_tokens("alice") == []


def test_changing_the_password_ends_other_logins_and_keeps_this_one(server):
    server.user("alice")
    other, client = server.browser("alice"), server.browser("alice")
    form = {"current": "wrong", "password": "another password", "repeat": "another password"}
    assert client.post("/auth/account/password", data=form).status_code == 401
    answer = client.post("/auth/account/password", data={**form, "current": "correct horse battery"})
    assert answer.status_code == 200
    assert client.get("/auth/account").status_code == 200
    assert other.get("/auth/account").status_code == 303


def test_one_ends_ones_own_logins_only(server):
    server.user("alice")
    server.user("bob")
    client, other, bob = server.browser("alice"), server.browser("alice"), server.browser("bob")
    listed = client.get("/auth/sessions").json()["sessions"]
    assert sorted(session["current"] for session in listed) == [False, True]
    [of_other] = [session["id"] for session in listed if not session["current"]]
    [of_bob] = [session.id for session in sessions.list_sessions("bob")]
    assert client.delete(f"/auth/sessions/{of_bob}").status_code == 404
    assert client.post(f"/auth/account/sessions/{of_bob}/end").status_code == 404
    assert client.delete("/auth/sessions", params={"user": "bob"}).status_code == 403
    assert client.post(f"/auth/account/sessions/{of_other}/end").status_code == 303
    assert other.get("/auth/whoami").status_code == 401
    assert client.get("/auth/whoami").status_code == bob.get("/auth/whoami").status_code == 200


def test_an_owner_ends_all_logins_of_somebody(server):
    server.user("owner", "org_owner@organization/acme")
    server.user("alice")
    alice = server.browser("alice")
    assert server.as_user("owner").delete("/auth/sessions", params={"user": "alice"}).status_code == 204
    assert alice.get("/auth/whoami").status_code == 401


def test_a_token_is_no_browser(server):
    server.user("alice", "ws_member@workspace/data")
    client = server.with_token("alice")
    assert client.get("/auth/account").status_code == 403
    form = {"current": "correct horse battery", "password": "another password", "repeat": "another password"}
    assert client.post("/auth/account/password", data=form).status_code == 403
    limited = server.with_token("alice", ["dag:GET"])
    assert limited.get("/auth/sessions").status_code == 403
    assert limited.delete("/auth/sessions", params={"user": "alice"}).status_code == 403
