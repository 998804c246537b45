# SPDX-License-Identifier: Apache-2.0
"""The footer as people see it: real Airflow processes, a real run with a log, headless Chromium."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.airflow_server import AirflowServer
from support.browser import chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route

pytestmark = pytest.mark.browser

EXAMPLE = Path(__file__).parents[2] / "packages" / "ui" / "examples" / "runtime_facts.py"
TAG = "1.4.0-slim"
DAG = """
import logging

from airflow.sdk import dag, task

@dag(schedule=None)
def footer_demo():
    @task
    def talk():
        for number in range(300):
            logging.getLogger("airflow.task").info("line %d", number)
    talk()

footer_demo()
"""
RUNTIME = {
    "TRADEWIND_RUNTIME_VERSION": "1.4.0",
    "TRADEWIND_IMAGE_TAG": TAG,
    "TRADEWIND_LINKS": '[{"label": "Run <b>book", "url": "https://wiki.example.org/?a=1&b=2"},'
    ' {"label": "Status", "url": "https://status.example.org/"}]',
}
PAGES = {
    "login": "/auth/login",
    "home": "/",
    "dags": "/dags",
    "dag": "/dags/footer_demo",
    "run": "/dags/footer_demo/runs/{run}",
    "task log": "/dags/footer_demo/runs/{run}/tasks/talk",
    "connections": "/connections",
    "404": "/no/such/page",
    "docs": "/docs",
}
VIEWPORT = {"width": 1280, "height": 720}
# How much of what was already drawn has moved.
LAYOUT_SHIFT = """() => new Promise((done) => {
  let sum = 0;
  new PerformanceObserver((list) => list.getEntries().forEach((e) => { sum += e.value; }))
    .observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(sum), 500);
})"""

EACH_FRAME = """
window.words = new Set();
window.content = new Set();
(function look() {
  const word = document.querySelector("tradewind-footer")?.shadowRoot?.querySelector("span");
  if (word) window.words.add(Math.round(word.getBoundingClientRect().left));
  const main = document.querySelector("[data-testid=main-content]");
  if (main) window.content.add(Math.round(main.getBoundingClientRect().bottom));
  requestAnimationFrame(look);
})();
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "dags").mkdir()
    (folder / "dags" / "footer_demo.py").write_text(DAG, encoding="utf-8")
    shutil.copy(EXAMPLE, folder / "dags")
    return folder


@pytest.fixture(scope="module")
def airflow(home: Path, migrated_sqlite: Path) -> Iterator[AirflowServer]:
    with AirflowServer(home, database=migrated_sqlite, env=RUNTIME) as server:
        server.start_api_server()
        yield server


@pytest.fixture(scope="module")
def runs(airflow: AirflowServer) -> dict[str, str]:
    """The id of one successful run of each Dag."""
    airflow.start("scheduler")
    airflow.start("dag-processor")
    runs = {dag_id: airflow.run_dag(dag_id) for dag_id in ("footer_demo", "runtime_facts")}
    airflow.stop("scheduler", "dag-processor")
    return runs


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def logged_in(browser: Browser, airflow: AirflowServer, user: str = "admin", **options: object) -> BrowserContext:
    context = browser.new_context(viewport=VIEWPORT, **options)
    context.add_cookies([{"name": "_token", "value": airflow.token(user), "url": f"{airflow.url}/"}])
    return context


@pytest.fixture(scope="module")
def admin(browser: Browser, airflow: AirflowServer) -> Iterator[BrowserContext]:
    context = logged_in(browser, airflow)
    yield context
    context.close()


@pytest.fixture
def page(admin: BrowserContext) -> Iterator[Page]:
    page = admin.new_page()
    yield page
    page.close()


@pytest.fixture
def anonymous(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport=VIEWPORT)
    yield context.new_page()
    context.close()


def footer(page: Page) -> Locator:
    """The bar itself; Playwright's selectors look into open shadow roots."""
    return page.get_by_role("contentinfo")


def shows(page: Page, text: str) -> None:
    footer(page).get_by_text(text, exact=True).wait_for(state="visible", timeout=20_000)


def edges(page: Page, selector: str) -> dict[str, float]:
    found: dict[str, float] = page.locator(selector).first.evaluate(
        "e => { const {left, right, top, bottom, width, height} = e.getBoundingClientRect();"
        " return {left, right, top, bottom, width, height}; }"
    )
    return found


def assert_seen(page: Page) -> None:
    """The bar lies at the bottom of the window, on top of everything, over its whole width."""
    box = footer(page).bounding_box()
    assert box is not None
    assert box["y"] + box["height"] == pytest.approx(VIEWPORT["height"], abs=1)
    assert box["height"] == pytest.approx(28, abs=1)
    assert box["x"] + box["width"] == pytest.approx(VIEWPORT["width"], abs=1)
    for share in (0.01, 0.5, 0.99):
        point = [box["x"] + box["width"] * share, box["y"] + box["height"] / 2]
        assert page.evaluate("([x, y]) => document.elementFromPoint(x, y).localName", point) == "tradewind-footer"


@pytest.mark.parametrize("name", PAGES)
def test_the_footer_is_on_every_page(page: Page, airflow: AirflowServer, runs: dict[str, str], name: str) -> None:
    page.goto(airflow.url + PAGES[name].format(run=runs["footer_demo"]), wait_until="domcontentloaded")
    if name == "task log":
        page.get_by_text(re.compile("line [0-9]+")).first.wait_for(timeout=30_000)
    elif name not in {"login", "docs"}:
        page.get_by_test_id("main-content").wait_for(timeout=30_000)
    for text in ("Tradewind Runtime 1.4.0", "Airflow 3.3.2", f"Image {TAG}", "Run <b>book", "Status"):
        shows(page, text)
    assert_seen(page)
    assert page.locator("tradewind-footer").count() == 1
    if page.get_by_test_id("main-content").count():
        bar = footer(page).bounding_box()
        assert bar is not None
        assert edges(page, "[data-testid=main-content]")["bottom"] <= bar["y"] + 1
        assert bar["x"] == pytest.approx(edges(page, "[data-testid=nav-sidebar]")["right"], abs=1)
        assert page.evaluate("document.documentElement.scrollHeight") == VIEWPORT["height"]


@pytest.mark.parametrize("path", ["/auth/login", "/docs", "/no/such/page"])
def test_before_login_nobody_learns_a_version(anonymous: Page, airflow: AirflowServer, path: str) -> None:
    with anonymous.expect_response(re.compile("/tradewind/api/v1/runtime")) as asked:
        anonymous.goto(airflow.url + path, wait_until="domcontentloaded")
    assert asked.value.status == 401
    if path != "/docs":  # Airflow leads anonymous people from its own pages to the login form
        anonymous.locator("[type=submit]").wait_for()
    shows(anonymous, "Tradewind Runtime")
    shows(anonymous, "Status")
    assert_seen(anonymous)
    seen = anonymous.content() + footer(anonymous).inner_text()
    assert "1.4.0" not in seen
    assert "3.3.2" not in seen


def test_after_the_login_form_the_footer_tells_the_tag(anonymous: Page, airflow: AirflowServer) -> None:
    anonymous.goto(f"{airflow.url}/", wait_until="domcontentloaded")
    anonymous.fill("[name=username]", "viewer")
    anonymous.fill("[name=password]", airflow.password("viewer"))
    anonymous.click("[type=submit]")
    anonymous.get_by_test_id("main-content").wait_for()
    shows(anonymous, f"Image {TAG}")
    assert_seen(anonymous)


def test_a_login_elsewhere_is_noticed_without_a_new_document(anonymous: Page, airflow: AirflowServer) -> None:
    with anonymous.expect_response(re.compile("/tradewind/api/v1/runtime")):
        anonymous.goto(f"{airflow.url}/auth/login", wait_until="domcontentloaded")
    anonymous.evaluate("window.sameDocument = true")
    anonymous.context.add_cookies([{"name": "_token", "value": airflow.token("viewer"), "url": f"{airflow.url}/"}])
    anonymous.wait_for_timeout(1100)  # the footer asks at most once a second
    anonymous.evaluate("window.dispatchEvent(new Event('focus'))")
    shows(anonymous, f"Image {TAG}")
    assert anonymous.evaluate("window.sameDocument")


def test_names_are_shown_as_text_and_links_lead_where_they_say(page: Page, airflow: AirflowServer) -> None:
    page.goto(f"{airflow.url}/docs", wait_until="domcontentloaded")
    link = footer(page).get_by_role("link", name="Run <b>book")
    assert link.get_attribute("href") == "https://wiki.example.org/?a=1&b=2"
    assert link.get_attribute("rel") == "noreferrer"
    assert footer(page).locator("b").count() == 0


def test_links_are_reached_with_the_keyboard_and_show_it(page: Page, airflow: AirflowServer) -> None:
    page.goto(f"{airflow.url}/docs", wait_until="domcontentloaded")
    shows(page, "Status")
    names = []
    for _ in range(2):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.shadowRoot?.activeElement?.textContent"))
    assert names == ["Run <b>book", "Status"]
    focused = footer(page).get_by_role("link", name="Status")
    assert focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"


@pytest.mark.parametrize(("scheme", "path"), [(s, p) for s in ("light", "dark") for p in ("/dags", "/docs")])
def test_the_bar_is_dark_where_the_page_is(
    browser: Browser, airflow: AirflowServer, scheme: str, path: str, tmp_path: Path
) -> None:
    context = logged_in(browser, airflow, color_scheme=scheme)
    page = context.new_page()
    page.goto(airflow.url + path, wait_until="domcontentloaded")
    shows(page, f"Image {TAG}")
    page.screenshot(path=tmp_path / f"{scheme}.png")
    # The text's own colour and the bar's, as numbers from 0 to 255.
    background, text = (
        sum(map(int, re.findall(r"\d+", color)[:3])) / 3
        for color in footer(page).evaluate("e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]")
    )
    darker, lighter = (background, text) if scheme == "dark" else (text, background)
    assert darker < 90
    assert lighter > 180
    context.close()


def test_airflows_own_switch_wins_over_the_systems_colours(browser: Browser, airflow: AirflowServer) -> None:
    context = logged_in(browser, airflow, color_scheme="light")
    page = context.new_page()
    page.goto(f"{airflow.url}/dags", wait_until="domcontentloaded")
    page.get_by_test_id("main-content").wait_for()
    page.evaluate("localStorage.setItem('theme', 'dark')")
    page.reload()
    page.locator("html.dark").wait_for()
    shows(page, f"Image {TAG}")
    assert footer(page).evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(15, 23, 42)"
    context.close()


def test_the_bar_follows_a_right_to_left_page(browser: Browser, airflow: AirflowServer, tmp_path: Path) -> None:
    context = logged_in(browser, airflow)
    page = context.new_page()
    page.goto(f"{airflow.url}/dags", wait_until="domcontentloaded")
    page.evaluate("localStorage.setItem('i18nextLng', 'he')")
    page.reload()
    page.locator("html[dir=rtl] [data-testid=nav-sidebar]").wait_for()
    shows(page, f"Image {TAG}")
    page.wait_for_timeout(300)
    page.screenshot(path=tmp_path / "rtl.png")
    bar = footer(page).bounding_box()
    name = footer(page).get_by_text("Tradewind Runtime 1.4.0").bounding_box()
    link = footer(page).get_by_text("Status").bounding_box()
    assert bar is not None
    assert name is not None
    assert link is not None
    assert bar["x"] == 0
    assert bar["width"] == pytest.approx(edges(page, "[data-testid=nav-sidebar]")["left"], abs=1)
    assert name["x"] > link["x"]
    context.close()


def test_a_login_form_higher_than_the_window_can_be_scrolled_above_the_bar(
    anonymous: Page, airflow: AirflowServer
) -> None:
    anonymous.set_viewport_size({"width": 800, "height": 300})
    anonymous.goto(f"{airflow.url}/auth/login", wait_until="domcontentloaded")
    anonymous.locator("[type=submit]").wait_for()
    shows(anonymous, "Status")
    anonymous.evaluate("window.scrollTo(0, 100000)")
    assert edges(anonymous, ".chakra-container")["bottom"] <= 300 - 28 + 1


def long_document(route: Route) -> None:
    answer = route.fetch()
    paragraphs = "".join(f"<p id=p{number}>{number}</p>" for number in range(100))
    route.fulfill(response=answer, body=answer.text().replace("<body>", f"<body>{paragraphs}"))


def test_in_an_ordinary_document_the_last_line_is_above_the_bar_and_nothing_moves(
    page: Page, airflow: AirflowServer
) -> None:
    page.route("**/docs", long_document)
    page.goto(f"{airflow.url}/docs", wait_until="domcontentloaded")
    shows(page, f"Image {TAG}")
    assert page.evaluate(LAYOUT_SHIFT) == 0
    page.evaluate("window.scrollTo(0, 100000)")
    assert edges(page, "#p99")["bottom"] <= VIEWPORT["height"] - 28


@pytest.mark.parametrize("path", ["/dags", "/connections"])
def test_while_an_airflow_page_loads_neither_its_content_nor_the_bars_words_jump(
    page: Page, airflow: AirflowServer, path: str
) -> None:
    # Not Chromium's layout shift score: Airflow's own lists move while they load.
    page.add_init_script(EACH_FRAME)
    page.goto(airflow.url + path, wait_until="domcontentloaded")
    shows(page, f"Image {TAG}")
    page.get_by_test_id("main-content").wait_for()
    page.wait_for_timeout(500)
    words, content = page.evaluate("[[...window.words], [...window.content]]")
    assert words == [76]
    assert content == [VIEWPORT["height"] - 28]


def test_a_strict_content_security_policy_is_enough(anonymous: Page, airflow: AirflowServer) -> None:
    policy = "default-src 'none'; script-src 'self'; connect-src 'self'"

    def strict(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, "content-security-policy": policy})

    refused: list[str] = []
    anonymous.on("console", lambda m: refused.append(m.text) if "tradewind" in m.text else None)
    anonymous.route("**/docs", strict)
    with anonymous.expect_response(re.compile("/tradewind/api/v1/runtime")):
        anonymous.goto(f"{airflow.url}/docs", wait_until="domcontentloaded")
    shows(anonymous, "Status")
    assert_seen(anonymous)
    assert [text for text in refused if "Content Security Policy" in text] == []


def test_a_page_inside_another_page_of_this_server_has_no_bar_of_its_own(page: Page, airflow: AirflowServer) -> None:
    page.goto(f"{airflow.url}/docs", wait_until="domcontentloaded")
    shows(page, "Status")
    page.evaluate(
        "() => { const f = document.createElement('iframe'); f.src = '/redoc'; document.body.append(f);"
        " return new Promise((done) => { f.onload = () => setTimeout(done, 500); }); }"
    )
    (inner,) = [frame for frame in page.frames if frame.url.endswith("/redoc")]
    assert inner.evaluate("!!document.querySelector('tradewind-footer')")
    assert not inner.evaluate("!!document.querySelector('tradewind-footer').shadowRoot")


def test_the_example_dag_tells_the_same_facts_from_a_task(airflow: AirflowServer, runs: dict[str, str]) -> None:
    path = f"api/v2/dags/runtime_facts/dagRuns/{runs['runtime_facts']}/taskInstances/tell/xcomEntries"
    answer = airflow.client("admin").get(f"{path}/return_value", params={"deserialize": True})
    assert answer.json()["value"] == {
        "product": "Tradewind Runtime",
        "version": "1.4.0",
        "airflow": "3.3.2",
        "image_tag": TAG,
    }


def test_the_kill_switch_leaves_no_trace_in_any_page(browser: Browser, airflow: AirflowServer, home: Path) -> None:
    off = {**RUNTIME, "AIRFLOW__TRADEWIND_UI__FOOTER_ENABLED": "False"}
    with AirflowServer(home, env=off) as without:
        without.start_api_server()
        client = without.client()
        for path in ("auth/login", "dags", "docs"):
            assert "tradewind" not in client.get(path).text
        context = logged_in(browser, without)
        page = context.new_page()
        page.goto(f"{without.url}/dags", wait_until="domcontentloaded")
        page.get_by_test_id("main-content").wait_for()
        assert page.locator("tradewind-footer").count() == 0
        assert edges(page, "[data-testid=main-content]")["bottom"] == VIEWPORT["height"]
        context.close()
        assert without.client("viewer").get("tradewind/api/v1/runtime").json()["image_tag"] == TAG


def test_under_a_path_prefix_with_two_workers_and_malformed_links(
    browser: Browser, airflow: AirflowServer, home: Path
) -> None:
    env = {**RUNTIME, "TRADEWIND_LINKS": "[oops"}
    with AirflowServer(home, base_path="/team/airflow", env=env) as prefixed:
        prefixed.start_api_server(workers=2)
        context = browser.new_context(viewport=VIEWPORT)
        page = context.new_page()
        with page.expect_response(re.compile("/tradewind/static/footer.js")) as script:
            page.goto(f"{prefixed.url}/", wait_until="domcontentloaded")
        assert script.value.url.startswith(f"{prefixed.url}/tradewind/")
        page.fill("[name=username]", "viewer")
        page.fill("[name=password]", prefixed.password("viewer"))
        page.click("[type=submit]")
        page.get_by_test_id("main-content").wait_for()
        for path in ("/", "/dags", "/docs"):
            page.goto(prefixed.url + path, wait_until="domcontentloaded")
            if path != "/docs":
                page.get_by_test_id("main-content").wait_for()
            for text in (f"Image {TAG}", "Airflow documentation"):
                shows(page, text)
            assert_seen(page)
        context.close()
        warnings = [line for line in prefixed.output("api-server").splitlines() if "TRADEWIND_LINKS" in line]
        assert 1 <= len(warnings) <= 2  # one of each worker
        assert all("[oops" in line and "expected" in line for line in warnings)
