# SPDX-License-Identifier: Apache-2.0
"""Logins at a real OpenID Connect provider on 127.0.0.1, and logouts that it tells us of."""

from __future__ import annotations

from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from api_fixtures import POLICY, airflow_app, airflow_with_ours, server
from identity_fixtures import CLIENT_ID, DISCOVERY, running_provider

from tradewind.security.store import sessions, users

__all__ = ["airflow_app", "airflow_with_ours", "server"]

EVENT = {"http://schemas.openid.net/event/backchannel-logout": {}}


@pytest.fixture
def provider():
    with running_provider() as running:
        yield running


@pytest.fixture
def corp(server, provider):
    use(server, provider)
    return server


def use(server, *providers, more=""):
    entries = "".join(
        f"  - {{name: corp{number or ''}, label: Corp {number}, client_id: {CLIENT_ID}, issuer: '{one.url}'{more}}}\n"
        for number, one in enumerate(providers)
    )
    bindings = 'bindings:\n  - {group: "corp:sre", role: ws_member, scope: workspace/data}\n'
    server.write_policy(f"{POLICY}issuers:\n{entries}{bindings}")


def begin(client, path="/auth/login", wanted=None):
    answer = client.get(path, params={"next": wanted} if wanted else {})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def come_back(client, provider, url, **parameters):
    return client.get("/auth/callback", params=provider.redirect(url, **parameters))


def log_in(server, provider, wanted=None):
    client = server.client()
    answer = come_back(client, provider, begin(client, wanted=wanted))
    assert answer.status_code == 303, answer.text
    return client


def test_the_only_provider_is_where_a_login_leads(corp, provider):
    client = corp.client()
    url = begin(client, wanted="/dags")
    assert url.startswith(f"{provider.url}/authorize?")
    asked = dict(parse_qsl(urlsplit(url).query))
    assert asked["redirect_uri"] == "http://testserver/auth/callback"
    assert asked["code_challenge_method"] == "S256"
    answer = come_back(client, provider, url)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dags")
    assert answer.headers["cache-control"] == "no-store"
    who = client.get("/auth/whoami").json()
    assert (who["id"], who["groups"]) == ("alice@acme.example", ["corp:sre"])
    assert client.get("/ui/auth/me").json()["id"] == "alice@acme.example"
    assert client.get("/api/v2/dags").status_code == 200
    [session] = sessions.list_sessions("alice@acme.example")
    assert (session.issuer, session.idp_session, session.idp_subject) == ("corp", "s-1", "u-1")
    [event] = corp.events("login")
    assert (event["outcome"], event["details"]["issuer"]) == ("success", "corp")


def test_the_login_in_progress_is_in_a_signed_cookie_of_this_app(corp):
    answer = corp.client(base_url="https://testserver").get("/auth/login")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("_tradewind_login_")
    for attribute in ("HttpOnly", "Max-Age=300", "Path=/auth", "SameSite=lax", "Secure"):
        assert attribute in cookie


def test_the_address_that_is_registered_comes_from_the_configuration(corp, monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.acme.example/")
    asked = parse_qs(urlsplit(begin(corp.client())).query)
    assert asked["redirect_uri"] == ["https://airflow.acme.example/auth/callback"]


def test_the_form_for_passwords_is_there_when_asked_for(corp):
    page = corp.client().get("/auth/login?local=1").text
    assert 'name="password"' in page
    assert "Log in with Corp 0" in page


def test_several_providers_are_offered(server, provider):
    with running_provider() as other:
        use(server, provider, other)
        client = server.client()
        answer = client.get("/auth/login", params={"next": "/dags"})
        assert "Log in with Corp 0" in answer.text
        assert 'href="/auth/login/corp1?next=%2Fdags"' in answer.text
        assert 'name="password"' not in answer.text
        assert (
            f"form-action 'self' {' '.join(sorted([provider.url, other.url]))};"
            in answer.headers["content-security-policy"]
        )
        assert begin(client, "/auth/login/corp1").startswith(other.url)
        server.user("alice")
        assert 'name="password"' in client.get("/auth/login").text


@pytest.mark.parametrize("wanted", ["https://evil.example", "//evil.example", "/\\evil.example"])
def test_a_login_at_a_provider_leads_nowhere_else(corp, provider, wanted):
    client = corp.client()
    answer = come_back(client, provider, begin(client, wanted=wanted))
    assert answer.headers["location"] == "/"


def test_a_provider_that_is_down_is_named_and_sessions_go_on(corp, provider):
    client = log_in(corp, provider)
    provider.spoiled[DISCOVERY] = (503, b"", 0)
    use(corp, provider, more=", leeway: 31")
    answer = corp.client().get("/auth/login")
    assert answer.status_code == 503
    assert "Corp 0 does not answer" in answer.text
    assert client.get("/auth/whoami").status_code == 200


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"state": "x" * 43}, "no_transaction"),
        ({"state": ""}, "no_transaction"),
        ({"iss": "https://evil.example"}, "wrong_issuer"),
        ({"code": ""}, "invalid_request"),
        ({"code": "another"}, "invalid_grant"),
        ({"error": "access_denied"}, "access_denied"),
    ],
)
def test_every_failed_login_looks_the_same_and_opens_nothing(corp, provider, spoil, reason):
    client = corp.client()
    answer = come_back(client, provider, begin(client), **spoil)
    assert answer.status_code == 401
    assert "The login did not succeed" in answer.text
    assert reason not in answer.text
    assert "_token" not in client.cookies
    assert [event["reason"] for event in corp.events("login")] == [reason]


def test_a_login_that_another_browser_began_is_refused(corp, provider):
    url = begin(corp.client())
    assert come_back(corp.client(), provider, url).status_code == 401


def test_a_login_ends_once(corp, provider):
    client = corp.client()
    url = begin(client)
    kept = dict(client.cookies)
    assert come_back(client, provider, url).status_code == 303
    assert not [name for name in client.cookies if name.startswith("_tradewind_login_")]
    assert come_back(corp.client(cookies=kept), provider, url).status_code == 401


def test_two_tabs_log_in_beside_each_other(corp, provider):
    client = corp.client()
    first, second = begin(client, wanted="/dags"), begin(client, wanted="/assets")
    assert come_back(client, provider, first).headers["location"] == "/dags"
    assert come_back(client, provider, second).headers["location"] == "/assets"


def test_logins_that_nobody_ended_do_not_pile_up(corp):
    client = corp.client()
    for _ in range(12):
        begin(client)
    assert len([name for name in client.cookies if name.startswith("_tradewind_login_")]) <= 5


def test_a_disabled_user_does_not_get_in_through_a_provider(corp, provider):
    users.create("alice@acme.example")
    users.disable("alice@acme.example")
    client = corp.client()
    assert come_back(client, provider, begin(client)).status_code == 401
    assert [event["reason"] for event in corp.events("login")] == ["disabled"]


@pytest.mark.parametrize("local", ["user", "service"])
def test_a_name_that_people_choose_makes_nobody_a_local_user(corp, provider, local):
    if local == "user":
        corp.user("admin", "org_owner@organization/acme")
    else:
        corp.service("admin", "deployment_admin")
    provider.user = {"sub": "u-9", "preferred_username": "admin", "groups": []}
    provider.userinfo = {"sub": "u-9"}
    client = corp.client()
    assert come_back(client, provider, begin(client)).status_code == 401
    assert [event["reason"] for event in corp.events("login")] == ["name_of_a_local_user"]


def test_what_can_not_be_stored_is_no_login(corp, provider):
    provider.user = {**provider.user, "email": "\U0001f600@acme.example"}
    client = corp.client()
    assert come_back(client, provider, begin(client)).status_code == 401
    assert [event["reason"] for event in corp.events("login")] == ["unusable_claims"]


def test_logging_out_ends_the_session_at_the_provider_too(corp, provider):
    client = log_in(corp, provider)
    assert client.get("/api/v2/auth/logout").headers["location"] == "/auth/logout"
    url = client.get("/auth/logout").headers["location"]
    assert url.startswith(f"{provider.url}/logout?")
    asked = parse_qs(urlsplit(url).query)
    assert asked["post_logout_redirect_uri"] == ["http://testserver/auth/logged-out"]
    assert client.get("/auth/whoami").status_code == 401
    page = client.get("/auth/logged-out")
    assert (page.status_code, "You are logged out" in page.text) == (200, True)


def test_logging_out_works_while_the_provider_is_down(corp, provider):
    client = log_in(corp, provider)
    provider.spoiled[DISCOVERY] = (503, b"", 0)
    use(corp, provider, more=", leeway: 31")
    assert client.get("/auth/logout").headers["location"] == "/auth/logged-out"
    assert client.get("/auth/whoami").status_code == 401


def logout_token(provider, **claims):
    given = {"aud": CLIENT_ID, "events": EVENT, "jti": "j-1", "email": None, "groups": None, **claims}
    return provider.token(headers={"typ": "logout+jwt"}, **given)


def test_a_provider_ends_a_session(corp, provider):
    client, other = log_in(corp, provider), corp.client()
    provider.user = {"sub": "u-2", "email": "bob@acme.example", "groups": ["sre"], "sid": "s-2"}
    come_back(other, provider, begin(other))
    token = logout_token(provider, sub="u-1", sid="s-1")
    answer = corp.client().post("/auth/logout/backchannel", data={"logout_token": token})
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert client.get("/auth/whoami").status_code == 401
    assert other.get("/auth/whoami").status_code == 200
    again = corp.client().post("/auth/logout/backchannel", data={"logout_token": token})
    assert (again.status_code, again.json()) == (400, {"error": "invalid_request"})


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another"},
        {"iss": "https://evil.example"},
        {"events": {}},
        {"nonce": "x"},
        {"sub": None, "sid": None},
        {"jti": None},
    ],
)
def test_nobody_else_ends_a_session(corp, provider, claims):
    client = log_in(corp, provider)
    token = logout_token(provider, **claims)
    for given in (token, "", "a.b.c", token[:-4] + "AAAA"):
        assert corp.client().post("/auth/logout/backchannel", data={"logout_token": given}).status_code == 400
    assert client.get("/auth/whoami").status_code == 200


def test_a_token_of_somebody_from_a_provider_has_the_groups_of_the_last_login(corp, provider):
    client = log_in(corp, provider)
    made = client.post("/auth/tokens", json={"name": "ci", "expires_in": 3600}).json()
    program = corp.client(headers={"Authorization": f"Bearer {made['token']}"})
    assert program.get("/api/v2/dags").status_code == 200
    provider.user = {**provider.user, "groups": []}
    log_in(corp, provider)
    assert program.get("/auth/whoami").json()["groups"] == []
    assert program.get("/api/v2/dags").status_code == 403
