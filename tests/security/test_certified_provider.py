# SPDX-License-Identifier: Apache-2.0
"""People log in with Chromium at a certified OpenID provider, and out at either side."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import Error
from support.airflow_server import AirflowServer, free_port, wait_for
from support.browser import chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.oidc

POLICY = """
version: 1
organization: acme
issuers:
  - {{name: corp, issuer: "{issuer}", client_id: airflow, label: Acme}}
bindings:
  - {{group: "corp:sre", role: org_owner, scope: organization/acme}}
  - {{user: bob@acme.example, role: deployment_viewer, scope: deployment/default}}
"""


@pytest.fixture(scope="module")
def issuer() -> str:
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def airflow(issuer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    home = tmp_path_factory.mktemp("airflow")
    policy = home / "policy.yaml"
    policy.write_text(POLICY.format(issuer=issuer), encoding="utf-8")
    env = {
        "AIRFLOW__CORE__AUTH_MANAGER": "tradewind.security.auth_manager.TradewindAuthManager",
        "AIRFLOW__TRADEWIND_SECURITY__POLICY_FILE": str(policy),
        "AIRFLOW__TRADEWIND_SECURITY__CREATE_ADMIN": "False",
    }
    with AirflowServer(home, env=env) as server:
        server.migrate()
        server.start_api_server()
        yield server


@pytest.fixture(scope="module")
def provider(issuer: str, airflow: AirflowServer) -> Iterator[subprocess.Popen[bytes]]:
    node = shutil.which("node")
    if node is None or not os.environ.get("NODE_PATH"):
        raise FileNotFoundError("expected node on PATH and NODE_PATH with oidc-provider (see pytest --markers)")
    script = Path(__file__).parents[1] / "support" / "oidc_provider.mjs"
    arguments = [node, str(script), issuer.rpartition(":")[2], airflow.url]
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        discovery = f"{issuer}/.well-known/openid-configuration"
        wait_for(lambda: httpx.get(discovery).is_success, what="the provider", timeout_seconds=60)
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    # The node of a wheel is a script that waits for the real one.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    process.wait(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def log_in(browser: Browser, airflow: AirflowServer, name: str) -> Page:
    page = browser.new_context().new_page()
    page.goto(f"{airflow.url}/dags")
    page.locator("input[name=login]").fill(name)
    page.locator("input[name=password]").fill("anything")
    page.locator("button[type=submit]").click()
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url(f"{airflow.url}/dags")
    return page


def test_a_group_of_the_provider_gives_its_role(browser: Browser, airflow: AirflowServer, provider: object) -> None:
    page = log_in(browser, airflow, "alice")
    assert page.request.get(f"{airflow.url}/ui/auth/me").json()["id"] == "alice@acme.example"
    assert page.request.get(f"{airflow.url}/api/v2/connections").status == 200
    page.get_by_role("link", name="Dags").first.wait_for()


def test_somebody_without_the_group_has_what_is_bound_to_him(
    browser: Browser, airflow: AirflowServer, provider: object
) -> None:
    page = log_in(browser, airflow, "bob")
    assert page.request.get(f"{airflow.url}/api/v2/dags").status == 200
    assert page.request.get(f"{airflow.url}/api/v2/connections").status == 403
    stranger = log_in(browser, airflow, "mallory")
    assert stranger.request.get(f"{airflow.url}/api/v2/dags").status == 403


def test_logging_out_of_airflow_asks_the_provider_too(
    browser: Browser, airflow: AirflowServer, provider: object, issuer: str
) -> None:
    page = log_in(browser, airflow, "alice")
    page.goto(f"{airflow.url}/api/v2/auth/logout")
    assert page.url.startswith(issuer)
    page.locator("button[value=yes]").click()
    page.wait_for_url(f"{airflow.url}/auth/logged-out**")
    assert page.request.get(f"{airflow.url}/ui/auth/me").status == 401
    page.goto(f"{airflow.url}/dags")
    page.locator("input[name=login]").wait_for()


def test_logging_out_at_the_provider_ends_the_session_here(
    browser: Browser, airflow: AirflowServer, provider: object, issuer: str
) -> None:
    page = log_in(browser, airflow, "alice")
    answer = page.request.post(f"{airflow.url}/ui/auth/token", data={"token_type": "api"})
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert httpx.get(f"{airflow.url}/ui/auth/me", headers=headers).status_code == 200
    page.goto(f"{issuer}/session/end")
    page.locator("button[value=yes]").click()
    end = time.monotonic() + 5
    while httpx.get(f"{airflow.url}/ui/auth/me", headers=headers).status_code != 401:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_with_the_provider_away_sessions_go_on_and_the_login_page_says_so(
    browser: Browser, airflow: AirflowServer, provider: subprocess.Popen[bytes]
) -> None:
    page = log_in(browser, airflow, "bob")
    stop(provider)
    assert page.request.get(f"{airflow.url}/api/v2/dags").status == 200
    other = browser.new_context().new_page()
    # That it answered is believed for ten seconds.
    end = time.monotonic() + 15
    while True:
        with contextlib.suppress(Error):
            other.goto(f"{airflow.url}/auth/login")
            if "does not answer" in other.locator("body").inner_text():
                break
        assert time.monotonic() < end
        time.sleep(0.5)
