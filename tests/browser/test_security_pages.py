# SPDX-License-Identifier: Apache-2.0
"""The first login and the account page as people see them: a real API server below a path, headless Chromium."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest
from support.airflow_server import AirflowServer
from support.browser import chromium

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

PASSWORD = "a passphrase of my own"  # noqa: S105 - of a server that lives for a test
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => c.slice(0, 3)
    .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("h1, h2, p, a, label, button, th, td, dd, dt, input")]
    .filter((e) => e.checkVisibility() && (e.textContent.trim() || e.value))
    .map((e) => {
      const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 80)];
    })
    .filter(([ratio]) => ratio < 4.5);
}"""
NAMELESS = """() => [...document.querySelectorAll("input:not([type=hidden]), button, a")]
  .filter((e) => !(e.labels?.length || e.textContent.trim() || e.getAttribute("aria-label")))
  .map((e) => e.outerHTML)"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    env = {
        "AIRFLOW__CORE__AUTH_MANAGER": "tradewind.security.auth_manager.TradewindAuthManager",
        "AIRFLOW__TRADEWIND_SECURITY__AUDIT": "table:",
    }
    home = tmp_path_factory.mktemp("airflow")
    with AirflowServer(home, base_path="/team/airflow", env=env) as server:
        server.migrate()
        server.start_api_server()
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def logged_in(airflow: AirflowServer, browser: Browser) -> dict[str, object]:
    """The first administrator's browser, its password changed; what it stores."""
    context = browser.new_context()
    page = context.new_page()
    refused = watch(page)
    page.goto(f"{airflow.url}/dags")
    page.wait_for_url("**/auth/login**")
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(first_password(airflow.home))
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/auth/password")
    assert not [cookie for cookie in context.cookies() if cookie["name"] == "_token"]
    page.get_by_label("Current password").fill(first_password(airflow.home))
    page.get_by_label("New password", exact=True).fill(PASSWORD)
    page.get_by_label("New password again").fill(PASSWORD)
    page.get_by_role("button", name="Change the password").click()
    page.wait_for_url("**/team/airflow/dags")
    page.get_by_role("link", name="Dags").first.wait_for()
    assert refused == []
    state = context.storage_state()
    context.close()
    return dict(state)


def first_password(home: Path) -> str:
    return (home / "tradewind-admin-password").read_text(encoding="utf-8").strip()


def watch(page: Page) -> list[str]:
    """What the browser refused to run or could not load on our own pages."""
    refused: list[str] = []
    page.on(
        "console",
        lambda said: refused.append(said.text) if said.type == "error" and "/auth/" in said.location["url"] else None,
    )
    return refused


def test_the_first_login_changes_the_password_and_sets_airflows_cookie(logged_in):
    [cookie] = [cookie for cookie in logged_in["cookies"] if cookie["name"] == "_token"]
    assert cookie["path"] == "/team/airflow/"
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"


def test_the_account_page_makes_a_token_that_works_and_ends_it(airflow, browser, logged_in):
    context = browser.new_context(storage_state=logged_in)
    page = context.new_page()
    refused = watch(page)
    page.goto(f"{airflow.url}/auth/account")
    page.get_by_label("Name", exact=True).fill("<b>ci</b>")
    page.get_by_role("button", name="Create a token").click()
    token = page.locator("#token").inner_text()
    assert re.fullmatch(r"twr_[0-9a-f]{16}_[\w-]{43}_[0-9a-f]{8}", token)
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{airflow.url}/api/v2/dags", headers=headers).status_code == 200
    page.goto(f"{airflow.url}/auth/account")
    assert token not in page.content()
    page.get_by_role("button", name="Revoke token <b>ci</b>").click()
    page.wait_for_url("**/auth/account")
    assert page.get_by_text("<b>ci</b>").count() == 0
    assert httpx.get(f"{airflow.url}/api/v2/dags", headers=headers).status_code == 401
    assert refused == []
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_readable_and_usable_with_the_keyboard(airflow, browser, logged_in, scheme):
    context = browser.new_context(color_scheme=scheme, storage_state=logged_in)
    page = context.new_page()
    for path in ("/auth/login?local=1", "/auth/account", "/auth/callback"):
        page.goto(f"{airflow.url}{path}")
        assert page.locator("html").get_attribute("lang") == "en"
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate(NAMELESS) == []
        page.locator("body").press("Tab")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
    page.goto(f"{airflow.url}/auth/logged-out")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == (scheme == "dark")
    context.close()


@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_is_cut_off(airflow, browser, logged_in, width):
    context = browser.new_context(viewport={"width": width, "height": 800}, storage_state=logged_in)
    page = context.new_page()
    for path in ("/auth/login?local=1", "/auth/account"):
        page.goto(f"{airflow.url}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_pages_work_without_scripts(airflow, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{airflow.url}/auth/login")
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Log in").click()
    assert page.get_by_role("alert").inner_text() == "Wrong name or password"
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.goto(f"{airflow.url}/auth/account")
    assert page.get_by_role("heading", name="admin").is_visible()
    page.get_by_role("link", name="Log out").click()
    assert page.get_by_text("You are logged out").is_visible()
    page.goto(f"{airflow.url}/auth/account")
    assert "/auth/login" in page.url
    context.close()
