# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import time

import pytest
from api_fixtures import PASSWORD, airflow_app, airflow_with_ours, server

from tradewind.security.store import sessions, users

__all__ = ["airflow_app", "airflow_with_ours", "server"]


def log_in(client, name="alice", password=PASSWORD, wanted="", headers=None):
    return client.post(
        "/auth/login", data={"username": name, "password": password, "next": wanted}, headers=headers or {}
    )


def test_a_local_user_logs_in_and_is_known_to_airflow(server):
    server.user("alice", "ws_member@workspace/data")
    client = server.client()
    answer = log_in(client, wanted="/dags?search=x")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/dags?search=x"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("_token=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/;" in cookie
    assert "Secure" not in cookie
    assert client.get("/ui/auth/me").json() == {"id": "alice", "username": "alice"}
    assert [event["outcome"] for event in server.events("login")] == ["success"]


def test_cookies_are_for_https_only_where_the_page_is(server):
    server.user("alice")
    answer = log_in(server.client(base_url="https://airflow.acme.example"))
    assert "; Secure" in answer.headers["set-cookie"]


def test_a_session_ends_with_the_policys_limits(server):
    server.write_policy(
        "version: 1\norganization: acme\nworkspace: data\ndeployment: prod\nsession: {idle: 10m, absolute: 1h}\n"
    )
    server.user("alice")
    client = server.browser("alice")
    [session] = sessions.list_sessions("alice")
    assert session.ends_at.timestamp() == pytest.approx(time.time() + 3600, abs=60)
    assert expiry_of(client.cookies["_token"]) == pytest.approx(time.time() + 600, abs=60)


def expiry_of(token):
    import jwt

    return jwt.decode(token, options={"verify_signature": False})["exp"]


@pytest.mark.parametrize(
    ("name", "password"),
    [("alice", "wrong password"), ("nobody", PASSWORD), ("", ""), ("robot", PASSWORD), ("alice\x00", PASSWORD)],
)
def test_no_failed_login_tells_what_was_wrong(server, name, password):
    server.user("alice")
    server.service("robot")
    answer = log_in(server.client(), name, password)
    assert answer.status_code == 401
    assert "Wrong name or password" in answer.text
    assert "set-cookie" not in answer.headers
    other = log_in(server.client(), "somebody else", "another password")
    assert answer.text == other.text


def test_a_login_is_locked_after_five_failures_and_looks_like_any_other(server):
    server.user("alice")
    client = server.client()
    wrong = [log_in(client, password=f"wrong {number}").text for number in range(5)]
    locked = log_in(client)
    assert locked.status_code == 401
    assert {*wrong, locked.text} == {wrong[0]}
    assert server.client().post("/auth/token", json={"username": "alice", "password": PASSWORD}).status_code == 401
    assert [event["reason"] for event in server.events("login")] == ["wrong_password"] * 5 + ["locked"] * 2


def test_a_password_in_the_field_of_the_name_is_not_in_the_audit_log(server):
    log_in(server.client(), "hunter2hunter2", "alice")
    [event] = server.events("login")
    assert event["reason"] == "unknown_user"
    assert "hunter2" not in str(event)


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/",
        "//evil.example/",
        "///evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "https:\\\\evil.example",
        "https:evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "/\t/evil.example",
        "/%09/evil.example",
        "%2f%2fevil.example",
        "/%5cevil.example",
        "http://testserver@evil.example/",
        "http://testserver.evil.example/",
        "http://[::1",
        " //evil.example",
        "/" + "a" * 3000,
    ],
)
def test_a_login_leads_nowhere_else(server, wanted):
    server.user("alice")
    answer = log_in(server.client(), wanted=wanted)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize("wanted", ["/dags", "/dags?next=//evil.example", "http://testserver/dags", "dags"])
def test_a_login_leads_to_where_one_wanted(server, wanted):
    server.user("alice")
    assert log_in(server.client(), wanted=wanted).headers["location"] == wanted


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://other.testserver"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://testserver"}, 403),
        ({"Origin": "http://testserver"}, 303),
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({}, 303),
    ],
)
def test_another_site_can_not_log_somebody_in(server, headers, status):
    server.user("alice")
    answer = log_in(server.client(), headers=headers)
    assert answer.status_code == status
    assert ("set-cookie" in answer.headers) == (status == 303)


def test_another_site_can_not_use_somebodys_cookie(server):
    server.user("alice", "ws_member@workspace/data")
    client = server.browser("alice")
    body = {"name": "stolen", "expires_in": 3600}
    foreign = {"Origin": "https://evil.example"}
    assert client.post("/auth/tokens", json=body, headers=foreign).status_code == 403
    assert client.post("/auth/account/tokens", data={"name": "x", "days": "1"}, headers=foreign).status_code == 403
    assert client.post("/auth/tokens", json=body, headers={"Origin": "http://testserver"}).status_code == 201


def test_a_password_for_once_opens_no_session_until_it_is_changed(server):
    users.create("alice", password=PASSWORD, must_change_password=True)
    client = server.client()
    answer = log_in(client, wanted="/dags")
    assert (answer.status_code, answer.headers["location"]) == (303, "/auth/password")
    assert "_token" not in client.cookies
    assert sessions.list_sessions("alice") == []
    assert client.get("/ui/auth/me").status_code == 401
    assert client.get("/auth/whoami").status_code == 401
    assert "alice" in client.get("/auth/password").text

    def change(current, new, repeat):
        return client.post("/auth/password", data={"current": current, "password": new, "repeat": repeat})

    assert change("wrong", "another password", "another password").status_code == 401
    assert change(PASSWORD, "short", "short").status_code == 422
    assert change(PASSWORD, PASSWORD, PASSWORD).status_code == 422
    assert change(PASSWORD, "another password", "yet another one").status_code == 422
    assert sessions.list_sessions("alice") == []
    answer = change(PASSWORD, "another password", "another password")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dags")
    assert client.get("/ui/auth/me").status_code == 200
    assert (
        change("another password", "a third password", "a third password").headers["location"].startswith("/auth/login")
    )
    assert not users.get("alice").must_change_password


def test_a_password_for_once_gives_no_token(server):
    users.create("alice", password=PASSWORD, must_change_password=True)
    answer = server.client().post("/auth/token", json={"username": "alice", "password": PASSWORD})
    wrong = server.client().post("/auth/token", json={"username": "alice", "password": "x"})
    assert (
        (answer.status_code, answer.text) == (wrong.status_code, wrong.text) == (401, '{"detail":"Not authenticated"}')
    )
    assert "must_change_password" in [event.get("reason") for event in server.events("login")]


def test_a_cookie_of_one_purpose_serves_no_other(server):
    users.create("alice", password=PASSWORD, must_change_password=True)
    client = server.client()
    log_in(client)
    value = client.cookies["_tradewind_password"]
    other = server.client(cookies={"_tradewind_login_none": value})
    assert other.get("/auth/callback?code=x&state=y").status_code == 401
    forged = server.client(cookies={"_tradewind_password": value[:-2] + "xx"})
    assert forged.get("/auth/password").status_code == 303


@pytest.mark.parametrize(("path", "lifetime"), [("/auth/token", 86400), ("/auth/token/cli", 3600)])
@pytest.mark.parametrize("how", ["json", "data"])
def test_a_password_gives_a_token_that_ends_with_its_session(server, path, lifetime, how):
    server.user("alice")
    answer = server.client().post(path, **{how: {"username": "alice", "password": PASSWORD}})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    assert set(answer.json()) == {"access_token"}
    [session] = sessions.list_sessions("alice")
    expected = time.time() + min(lifetime, 43200)
    assert session.ends_at.timestamp() == pytest.approx(expected, abs=60)
    assert expiry_of(answer.json()["access_token"]) == pytest.approx(expected, abs=60)


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[" * 5000, "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[]", "application/json", 422),
        (b'{"username": {"a": "s3cret"}, "password": "s3cret"}', "application/json", 422),
        (b'{"username": "alice", "password": "x", "more": 1}', "application/json", 422),
        (b'{"username": "\\ud800", "password": "\\ud800"}', "application/json", 422),
        (b"username=alice", "application/x-www-form-urlencoded", 422),
        (b"x" * 100_000, "application/json", 413),
    ],
)
def test_a_malformed_login_is_refused_without_repeating_it(server, content, kind, status):
    answer = server.client().post("/auth/token", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert "s3cret" not in answer.text


def test_a_session_token_can_be_exchanged_only_within_its_session(server):
    server.user("alice", "ws_member@workspace/data")
    client = server.client()
    first = client.post("/auth/token/cli", json={"username": "alice", "password": PASSWORD}).json()["access_token"]
    client.headers["Authorization"] = f"Bearer {first}"
    second = client.post("/ui/auth/token", json={"token_type": "api"})
    assert second.status_code in {200, 201}, second.text
    assert expiry_of(second.json()["access_token"]) <= expiry_of(first) + 1
    assert server.with_token("alice").post("/ui/auth/token", json={"token_type": "api"}).status_code == 403


def test_logging_out_ends_the_session_and_does_not_log_in_again(server):
    server.user("alice")
    client = server.browser("alice")
    stolen = dict(client.cookies)
    answer = client.get("/api/v2/auth/logout")
    assert answer.status_code == 307
    assert answer.headers["location"] == "/auth/logout"
    answer = client.get("/auth/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/auth/logged-out")
    assert "_token" not in client.cookies
    assert "You are logged out" in client.get("/auth/logged-out").text
    assert server.client(cookies=stolen).get("/ui/auth/me").status_code == 401
    assert [event["subjectId"] for event in server.events("logout")] == ["alice"]


def test_the_logout_page_alone_ends_the_session_too(server):
    server.user("alice")
    client = server.browser("alice")
    stolen = dict(client.cookies)
    client.get("/auth/logout")
    assert server.client(cookies=stolen).get("/ui/auth/me").status_code == 401


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "twr_x"])
def test_logging_out_needs_no_session(server, token):
    assert server.client(cookies={"_token": token}).get("/auth/logout").headers["location"] == "/auth/logged-out"


def test_pages_run_nothing_that_is_not_ours(server):
    server.user("alice", "ws_member@workspace/data")
    for path in ("/auth/login", "/auth/logged-out", "/auth/account", "/auth/login/unknown", "/auth/callback"):
        answer = server.browser("alice").get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:;")
        assert "frame-ancestors 'none'" in policy
        assert "base-uri 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-frame-options"] == "DENY"
        # Where tradewind-ui is installed, its footer is there too.
        ours = re.sub(r"<tradewind-footer.*</script>", "", answer.text)
        assert not re.search(r"<style|<script>| style=| on\w+=|http://|https://", ours), path


def test_what_pages_need_is_served(server):
    html = server.client().get("/auth/login").text
    for path in set(re.findall(r'(?:src|href)="(/auth/static/[^"]+)"', html)):
        answer = server.client().get(path)
        assert answer.status_code == 200, path
        assert answer.headers.get("cache-control") != "no-store"


def test_what_somebody_types_is_text_on_the_page(server):
    answer = server.client().get("/auth/login", params={"next": '/dags"><script>alert(1)</script>'})
    assert "<script>alert" not in answer.text
    server.user("alice", "ws_member@workspace/data")
    client = server.browser("alice")
    client.post("/auth/account/tokens", data={"name": "<img src=x onerror=alert(1)>", "days": "1"})
    page = client.get("/auth/account").text
    assert "&lt;img src=x" in page
    assert "<img src=x" not in page


def test_no_secret_reaches_a_log(server, caplog, capsys):
    caplog.set_level("DEBUG")
    for client_log in ("httpx", "httpx2"):
        # The test's own client, which is a browser here.
        caplog.set_level("WARNING", client_log)
    server.user("alice", "ws_member@workspace/data")
    client = server.client()
    log_in(client, "alice", "a wrong passphrase")
    log_in(client)
    session = client.cookies["_token"]
    token = client.post("/auth/tokens", json={"name": "x", "expires_in": 3600}).json()["token"]
    changed = {"current": PASSWORD, "password": "quite another one", "repeat": "quite another one"}
    assert client.post("/auth/account/password", data=changed).status_code == 200
    client.post("/auth/token", json={"username": "alice", "password": ["quite another one"]})
    client.get("/auth/callback?code=the-code-of-a-login&state=abc")
    captured = capsys.readouterr()
    written = caplog.text + captured.out + captured.err + str(server.events())
    assert "/auth/callback" in written
    for secret in ("a wrong passphrase", PASSWORD, "quite another one", session, token, "the-code-of-a-login"):
        assert secret not in written
