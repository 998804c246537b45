# SPDX-License-Identifier: Apache-2.0
"""A person logs in at a provider that others wrote, uses a real API server, and logs out of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from support.airflow_server import AirflowServer, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = {"sub": "u-9", "email": "bob@acme.example", "name": "Bob", "groups": ["data"]}
POLICY = """
version: 1
organization: acme
issuers:
  - {{name: corp, issuer: "{issuer}", client_id: airflow, client_secret_env: CORP_CLIENT_SECRET, label: Corp}}
bindings:
  - {{group: "corp:data", role: deployment_viewer, scope: deployment/default}}
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--user-claims", json.dumps(USER)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: httpx.get(f"{url}/jwks").is_success, what="the provider", timeout_seconds=60)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def airflow(provider: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    home = tmp_path_factory.mktemp("airflow")
    policy = home / "policy.yaml"
    policy.write_text(POLICY.format(issuer=provider), encoding="utf-8")
    env = {
        "AIRFLOW__CORE__AUTH_MANAGER": "tradewind.security.auth_manager.TradewindAuthManager",
        "AIRFLOW__TRADEWIND_SECURITY__POLICY_FILE": str(policy),
        "AIRFLOW__TRADEWIND_SECURITY__CREATE_ADMIN": "False",
        "CORP_CLIENT_SECRET": "of the client",
    }
    with AirflowServer(home, base_path="/team", env=env) as server:
        server.migrate()
        server.start_api_server()
        yield server


def test_a_person_logs_in_and_out(airflow, provider):
    with httpx.Client(timeout=30) as browser:
        answer = browser.get(f"{airflow.url}/api/v2/auth/login", params={"next": f"{airflow.url}/dags"})
        while answer.is_redirect and provider not in answer.headers["location"]:
            answer = browser.get(str(answer.next_request.url))
        asked = answer.headers["location"]
        assert parse_qs(urlsplit(asked).query)["redirect_uri"] == [f"{airflow.url}/auth/callback"]
        assert "Authorize" in browser.get(asked).text
        callback = browser.post(asked, data={"sub": USER["sub"]}).headers["location"]
        entered = browser.get(callback)
        assert (entered.status_code, entered.headers["location"]) == (303, f"{airflow.url}/dags")

        assert browser.get(f"{airflow.url}/ui/auth/me").json() == {"id": "bob@acme.example", "username": "Bob"}
        assert browser.get(f"{airflow.url}/api/v2/dags").status_code == 200
        assert browser.get(f"{airflow.url}/api/v2/connections").status_code == 403
        assert browser.get(callback).status_code == 401

        left = browser.get(f"{airflow.url}/api/v2/auth/logout")
        left = browser.get(str(left.next_request.url))
        ending = browser.get(left.headers["location"])
        assert ending.url.path == "/oauth2/end_session"
        form = {"redirect_uri": parse_qs(urlsplit(left.headers["location"]).query)["post_logout_redirect_uri"][0]}
        back = browser.post(f"{provider}/oauth2/end_session/confirm", data=form).headers["location"]
        assert back == f"{airflow.url}/auth/logged-out"
        assert "You are logged out" in browser.get(back).text
        assert browser.get(f"{airflow.url}/ui/auth/me").status_code == 401


def test_the_access_log_does_not_hold_what_the_provider_sent(airflow):
    with httpx.Client(timeout=30) as browser:
        browser.get(f"{airflow.url}/auth/callback?code=the-code-of-a-login&state={'s' * 43}")
    written = wait_for(
        lambda: airflow.output("api-server") if "/auth/callback" in airflow.output("api-server") else None,
        what="the access log",
        timeout_seconds=30,
    )
    assert "the-code-of-a-login" not in written
