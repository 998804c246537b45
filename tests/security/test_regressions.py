# SPDX-License-Identifier: Apache-2.0
"""Holes that Airflow or its auth managers had, or still have, tried against a real app."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from store_fixtures import counted_queries
from support.security_app import AppClient, SecuredApp, secured_app
from support.security_seed import seed

from tradewind.security.authorization import FRESH_SECONDS
from tradewind.security.store import sessions, users
from tradewind.security.store import tokens as api_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")

POLICY = """
version: 1
organization: acme
workspace: data
deployment: prod
roles:
  materializer: {extends: [dag_author], allow: ["asset:*", "asset_alias:GET", "view.import_errors:GET"], scope: dag}
  no_logs: {extends: [], allow: ["dag:GET", "dag.run:GET", "dag.task_instance:*"], scope: deployment}
bindings:
- {user: owner, role: org_owner, scope: organization/acme}
- {user: author, role: dag_author, scope: deployment/prod, dags: {ids: [own_*]}}
- {user: tagged, role: dag_author, scope: deployment/prod, dags: {tags: [own_tag]}}
- {user: bundled, role: dag_author, scope: deployment/prod, dags: {bundles: [own_bundle]}}
- {user: teamed, role: dag_author, scope: team/alpha}
- {user: materializer, role: materializer, scope: deployment/prod, dags: {ids: [own_*]}}
- {user: curious, role: no_logs, scope: deployment/prod}
- {user: auditor, role: ws_owner, scope: workspace/data}
- {service: bot, role: ws_member, scope: workspace/data}
"""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredApp]:
    with secured_app(tmp_path_factory.mktemp("regressions"), POLICY) as app:
        seed(app, "owner")
        users.create("bot", kind="service")
        yield app


def ask(secured: SecuredApp, user: str, method: str, path: str, **options: Any) -> httpx.Response:
    return secured.client.request(method, path, token=secured.session(user), **options)


def state_of(secured: SecuredApp, side: str) -> str:
    path = f"/api/v2/dags/{side}_dag/dagRuns/{side}_run/taskInstances/{side}_task"
    return str(ask(secured, "owner", "GET", path).json()["state"])


def test_a_bulk_change_is_authorized_for_what_its_body_names(secured: SecuredApp) -> None:
    # CVE-2026-41084: authorized by the URL, acted on the body.
    entity = {"dag_id": "foreign_dag", "dag_run_id": "foreign_run", "task_id": "foreign_task", "new_state": "failed"}
    for dag in ("own_dag", "~"):
        for run in ("own_run", "~"):
            ask(
                secured,
                "author",
                "PATCH",
                f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances",
                json={"actions": [{"action": "update", "entities": [entity], "update_mask": ["new_state"]}]},
            )
            ask(
                secured,
                "author",
                "PATCH",
                f"/api/v2/dags/{dag}/dagRuns",
                json={"actions": [{"action": "delete", "entities": [entity | {"dag_run_id": "foreign_run"}]}]},
            )
    assert state_of(secured, "foreign") == "success"


@pytest.mark.parametrize("user", ["author", "tagged", "bundled", "teamed"])
def test_every_way_to_choose_dags_reaches_them_and_no_others(secured: SecuredApp, user: str) -> None:
    listed = ask(secured, user, "GET", "/api/v2/dags").json()["dags"]
    expected = {"own_dag"} if user == "tagged" else {"own_dag", "own_consumer"}
    assert {dag["dag_id"] for dag in listed} == expected
    assert ask(secured, user, "GET", "/api/v2/dags/own_dag").status_code == 200
    assert ask(secured, user, "GET", "/api/v2/dags/foreign_dag").status_code == 403
    own = ask(secured, user, "POST", "/api/v2/dags/own_dag/dagRuns", json={"logical_date": None})
    assert own.status_code == 200
    assert (
        ask(secured, user, "POST", "/api/v2/dags/foreign_dag/dagRuns", json={"logical_date": None}).status_code == 403
    )


def test_versions_of_others_dags_are_not_listed(secured: SecuredApp) -> None:
    # CVE-2026-26929.
    answer = ask(secured, "author", "GET", "/api/v2/dags/~/dagVersions")
    assert answer.status_code == 200
    assert "own_dag" in answer.text
    assert "foreign" not in answer.text


def test_materializing_an_asset_does_not_run_others_dags(secured: SecuredApp) -> None:
    # CVE-2026-32228.
    assets = secured.ids["asset"]
    own = ask(secured, "materializer", "POST", f"/api/v2/assets/{assets['own']}/materialize", json={})
    foreign = ask(secured, "materializer", "POST", f"/api/v2/assets/{assets['foreign']}/materialize", json={})
    assert own.status_code == 200
    assert foreign.status_code == 403


def test_traces_of_others_import_errors_are_not_shown(secured: SecuredApp) -> None:
    # CVE-2026-24098.
    answer = ask(secured, "materializer", "GET", "/api/v2/importErrors")
    assert answer.status_code == 200
    assert "own trace" in answer.text
    assert "foreign trace" not in answer.text
    number = secured.ids["import_error"]["foreign"]
    assert "foreign trace" not in ask(secured, "materializer", "GET", f"/api/v2/importErrors/{number}").text


def test_task_logs_need_their_own_cell(secured: SecuredApp) -> None:
    # CVE-2026-22922.
    task = "/api/v2/dags/own_dag/dagRuns/own_run/taskInstances/own_task"
    assert ask(secured, "curious", "GET", task).status_code == 200
    assert ask(secured, "curious", "GET", f"{task}/logs/1").status_code == 403


def test_logging_out_ends_every_token_of_the_session(secured: SecuredApp) -> None:
    # CVE-2026-48726, CVE-2025-57735: a token made from the session went on.
    token = secured.session("owner")
    other = secured.client.request("POST", "/ui/auth/token", token=token, json={"token_type": "api"}).json()
    assert secured.client.request("GET", "/ui/auth/me", token=other["access_token"]).status_code == 200
    answer = secured.client.request("GET", "/api/v2/auth/logout", token=token)
    assert answer.status_code in {302, 307}
    for one in (token, other["access_token"]):
        assert secured.client.request("GET", "/ui/auth/me", token=one).status_code == 401


def test_a_token_can_not_be_renewed_past_its_session(secured: SecuredApp) -> None:
    # Open in Airflow 3.3.2: any token can be exchanged for one that lasts a day.
    token = secured.session("owner", seconds=120)
    end = jwt.decode(token, options={"verify_signature": False})["exp"]
    for _ in range(3):
        for kind in ("api", "cli"):
            answer = secured.client.request("POST", "/ui/auth/token", token=token, json={"token_type": kind})
            token = answer.json()["access_token"]
            assert jwt.decode(token, options={"verify_signature": False})["exp"] <= end + 2


def test_an_api_token_can_not_be_exchanged(secured: SecuredApp) -> None:
    _, text = api_tokens.create("bot", "ci", expires_in=600)
    assert secured.client.request("GET", "/api/v2/dags", token=text).status_code == 200
    answer = secured.client.request("POST", "/ui/auth/token", token=text, json={"token_type": "api"})
    assert answer.status_code == 403
    assert "access_token" not in answer.text


def test_an_api_token_has_its_scopes_only_and_ends_when_revoked(secured: SecuredApp) -> None:
    record, text = api_tokens.create("bot", "narrow", ["dag:GET"], expires_in=600)
    assert secured.client.request("GET", "/api/v2/dags", token=text).status_code == 200
    assert secured.client.request("GET", "/api/v2/jobs", token=text).status_code == 403
    api_tokens.revoke(record.id)
    assert secured.client.request("GET", "/api/v2/dags", token=text).status_code == 401


def test_a_changed_policy_holds_for_sessions_and_tokens_that_exist(secured: SecuredApp) -> None:
    file = Path(str(secured.manager.policies.path))
    before = file.read_text(encoding="utf-8")
    token = secured.session("author")
    assert secured.client.request("GET", "/api/v2/dags/own_dag", token=token).status_code == 200
    try:
        file.write_text(before + "deny: [{user: author, cells: ['dag:*']}]\n", encoding="utf-8")
        end = time.monotonic() + 5
        while secured.client.request("GET", "/api/v2/dags/own_dag", token=token).status_code != 403:
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        file.write_text(before, encoding="utf-8")
        secured.manager.policies.refresh()
        time.sleep(2 * FRESH_SECONDS)


def test_cookies_are_renewed_while_they_are_used_and_not_past_the_end(secured: SecuredApp) -> None:
    fresh = secured.session("owner")
    claims = jwt.decode(fresh, options={"verify_signature": False})
    answer = secured.client.request("GET", "/ui/auth/me", headers={"Cookie": f"_token={fresh}"})
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    now = int(time.time())
    older = secured.signed(claims, iat=now - 1800, nbf=now - 1800, exp=now + 1800)
    answer = secured.client.request("GET", "/ui/auth/me", headers={"Cookie": f"_token={older}"})
    renewed = answer.headers["set-cookie"].split("_token=")[1].split(";")[0]
    assert jwt.decode(renewed, options={"verify_signature": False})["exp"] > now + 1800
    assert "HttpOnly" in answer.headers["set-cookie"]


def test_a_warm_request_is_authenticated_and_authorized_without_a_query(secured: SecuredApp) -> None:
    _, text = api_tokens.create("bot", "warm", expires_in=600)
    for token in (secured.session("owner"), text):
        # Authenticated only, and one that asks the auth manager for a view.
        for path in ("/ui/auth/me", "/ui/auth/menus"):
            assert secured.client.request("GET", path, token=token).status_code == 200
            with counted_queries() as statements:
                for _ in range(5):
                    assert secured.client.request("GET", path, token=token).status_code == 200
            # The one that other threads send every two seconds is not of a request.
            assert [one for one in statements if "tw_generation" not in one and "tw_api_token SET" not in one] == []


def test_claims_of_a_token_hold_no_roles_and_no_groups(secured: SecuredApp) -> None:
    token = secured.session("owner", groups=frozenset({"corp:sre"}))
    claims = jwt.decode(token, options={"verify_signature": False})
    assert set(claims) == {"sub", "kind", "sid", "jti", "aud", "nbf", "exp", "iat"}
    assert len(token) < 1000


def test_a_session_of_another_user_is_not_accepted(secured: SecuredApp) -> None:
    stolen = jwt.decode(secured.session("owner"), options={"verify_signature": False})["sid"]
    forged = secured.signed({"sub": "author", "kind": "user", "sid": stolen})
    assert secured.client.request("GET", "/ui/auth/me", token=forged).status_code == 401


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/auth/openapi.json"])
def test_documentation_asks_for_a_login(secured: SecuredApp, path: str) -> None:
    assert secured.client.request("GET", path).status_code == 401
    assert ask(secured, "author", "GET", path).status_code in {200, 404}


PLUGIN_POLICY = "plugins: {default: %s, anonymous: [/open]}\n"


@pytest.mark.parametrize(
    ("default", "expected"),
    [
        ("authenticated", {None: 401, "curious": 200, "auditor": 200}),
        ("deny", {None: 401, "curious": 403, "auditor": 200}),
    ],
)
def test_apps_of_plugins_are_guarded(secured: SecuredApp, default: str, expected: dict[str | None, int]) -> None:
    # Open in Airflow 3.3.2: it mounts them without any authentication.
    from fastapi import FastAPI

    from tradewind.security.middleware import GuardMiddleware

    plugin = FastAPI()

    @plugin.get("/data")
    @plugin.get("/")
    def data() -> str:
        return "data"

    app = FastAPI()
    for prefix in ("/plugin", "/deep/{name}/plugin", "/open"):
        app.mount(prefix, plugin)
    app.add_middleware(GuardMiddleware, manager=secured.manager)
    file = Path(str(secured.manager.policies.path))
    before = file.read_text(encoding="utf-8")
    client = AppClient(app)
    try:
        file.write_text(before + PLUGIN_POLICY % default, encoding="utf-8")
        assert secured.manager.policies.refresh(), secured.manager.policies.problem
        time.sleep(2 * FRESH_SECONDS)
        for user, status in expected.items():
            token = secured.session(user) if user else None
            for path in ("/plugin/data", "/plugin/", "/deep/x/plugin/data", "//plugin/data", "/plugin/%64ata"):
                found = client.request("GET", path, token=token).status_code
                assert found == status or (found == 404 and path.startswith("//")), (user, path)
            assert client.request("GET", "/open/data", token=token).status_code == 200
    finally:
        client.close()
        file.write_text(before, encoding="utf-8")
        secured.manager.policies.refresh()


def test_answers_carry_security_headers(secured: SecuredApp) -> None:
    answer = secured.client.request("GET", "/api/v2/version")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert answer.headers["referrer-policy"] == "same-origin"


def test_a_denial_is_audited_with_the_cell_that_was_missing(secured: SecuredApp) -> None:
    began = datetime.now(timezone.utc)
    ask(secured, "author", "DELETE", "/api/v2/dags/foreign_dag?secret=hunter2", headers={"User-Agent": "tests"})
    secured.client.request("GET", "/api/v2/dags")
    secured.client.request("GET", "/api/v2/dags", token=secured.signed({"sub": "x"}, exp=1))
    secured.manager.audit.flush()
    answer = ask(secured, "auditor", "GET", "/auth/audit", params={"limit": 100})
    assert answer.status_code == 200
    text = json.dumps(answer.json())
    events = answer.json()["events"] if isinstance(answer.json(), dict) else answer.json()
    recent = [event for event in events if event["timestamp"] >= began.isoformat()[:19]]
    denial = next(event for event in recent if event.get("subjectId") == "author")
    assert denial["reason"] == "lacks dag:DELETE"
    assert denial["method"] == "DELETE"
    assert denial["path"] == "/api/v2/dags/foreign_dag"
    assert denial["status"] == 403
    assert denial["userAgent"] == "tests"
    assert denial["details"]["resource"] == "foreign_dag"
    assert "hunter2" not in text
    assert any(event["reason"] == "expired" for event in recent)
    assert any(event["subjectType"] == "anonymous" for event in recent)
    assert ask(secured, "author", "GET", "/auth/audit").status_code == 403


def test_nobody_is_let_in_while_the_database_is_away(secured: SecuredApp) -> None:
    from airflow import settings
    from sqlalchemy import event

    token = secured.session("owner")
    assert secured.client.request("GET", "/ui/auth/me", token=token).status_code == 200
    other = secured.session("owner")

    def fail(*_: object) -> None:
        raise OSError("the database is away")

    engine = settings.get_engine()
    event.listen(engine, "before_cursor_execute", fail)
    try:
        assert secured.client.request("GET", "/ui/auth/me", token=other).status_code in {500, 503}
        time.sleep(6)
        # What was known is too old by now.
        assert secured.client.request("GET", "/ui/auth/me", token=token).status_code in {500, 503}
    finally:
        event.remove(engine, "before_cursor_execute", fail)
    end = time.monotonic() + 5
    while secured.client.request("GET", "/ui/auth/me", token=token).status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_sessions_that_ended_are_purged(secured: SecuredApp) -> None:
    secured.session("owner", seconds=2)
    time.sleep(2.1)
    assert sessions.purge() >= 1
