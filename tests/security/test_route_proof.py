# SPDX-License-Identifier: Apache-2.0
"""Every core route of the installed Airflow, every shipped role, own and foreign and all resources.

What is right comes from two tables that were made by reading Airflow and by decision, not from our code:
`routes.csv` (which cells a route asks for) and the component's `matrix.csv` (which role has which cell).
"""

from __future__ import annotations

import csv
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.security_app import SIDES, SecuredApp, secured_app
from support.security_seed import TEAMS, seed

from tradewind.security.authorization import FRESH_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

# Airflow's own models have fields that it deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")

HERE = Path(__file__).parent
TABLE = HERE.parents[1] / "packages/security/tests/data/matrix.csv"
MATRIX = {
    f"{row['resource']}:{row['method']}": row for row in csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines())
}
ROUTES = list(csv.DictReader((HERE / "routes.csv").read_text(encoding="utf-8").splitlines()))
ROLES = [name for name in next(iter(MATRIX.values())) if name not in {"resource", "method", "routes_3_3_2"}]
PUBLIC = {
    ("GET", "/api/v2/monitor/health"),
    ("GET", "/api/v2/version"),
    ("GET", "/api/v2/auth/login"),
    ("GET", "/api/v2/auth/logout"),
}
DAG_ROLES = {"dag_viewer", "dag_author"}
BULK = {
    "connection_bulk": "connection:DELETE",
    "variable_bulk": "variable:DELETE",
    "pool_bulk": "pool:DELETE",
    "dag_run_bulk": "dag.run:DELETE",
    "dag_run_clear_bulk": "dag.run:PUT",
}
# A refusal looks like something that does not exist.
HIDDEN = ("/api/v2/backfills/{backfill_id}", "/api/v2/connections/enqueue-test")


def _scope(role: str) -> str:
    if role.startswith("ws_"):
        return "workspace/data"
    if role.startswith("org_"):
        return "organization/acme"
    return "team/alpha" if role == "team_member" else "deployment/prod"


POLICY = "version: 1\norganization: acme\nworkspace: data\ndeployment: prod\nbindings:\n" + "".join(
    f"- {{user: {role}, role: {role}, scope: {_scope(role)}{', dags: {ids: [own_*]}' if role in DAG_ROLES else ''}}}\n"
    for role in ROLES
)


def cells_of(route: dict[str, str]) -> list[str]:
    """The cells that a route asks for, in our names."""
    cells = []
    for part in route["required_cells"].split(" & "):
        if part in {"authenticated", "PUBLIC"}:
            continue
        resource, _, method = BULK.get(part, part).partition(":")
        if resource.startswith("view."):
            cells.append(f"{resource.lower()}:GET")
            continue
        resource = {"backfill": "dag.run", "event_log": "dag.audit_log", "dag_from_file_token": "dag"}.get(
            resource, resource.lower()
        )
        cells.append(f"{resource}:{method}")
    return cells


def granted(role: str, cell: str, side: str) -> bool:
    """What the tables say: a role's cell for `own`, `foreign` or `all` resources."""
    if MATRIX[cell][role] != "1":
        return False
    reading = cell.endswith(":GET")
    if role in DAG_ROLES and cell.startswith(("dag:", "dag.")):
        return side == "own" or (side == "all" and reading)
    if role == "team_member" and cell.partition(":")[0] in {"connection", "variable", "pool", "team"}:
        return side == "own" or (side == "all" and reading)
    return True


def sides_of(route: dict[str, str]) -> tuple[str, ...]:
    """Which resources a route can be asked for."""
    path = route["path"]
    if "{dag_id}" in path:
        return ("own", "foreign", "all")
    named = ("{connection_id}", "{variable_key", "{pool_name", "{backfill_id}", "{event_log_id}", "{file_token}")
    if any(name in path for name in named):
        return SIDES
    if path in {"/ui/structure/structure_data", "/ui/backfills"} or "bulk" in route["required_cells"]:
        return SIDES
    if route["method"] == "POST" and path in {
        "/api/v2/backfills",
        "/api/v2/backfills/dry_run",
        "/api/v2/connections",
        "/api/v2/variables",
        "/api/v2/pools",
    }:
        return SIDES
    return ("all",)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredApp]:
    folder = tmp_path_factory.mktemp("proof")
    with secured_app(folder, POLICY, AIRFLOW__API__EXPOSE_CONFIG="True") as app:
        seed(app, "org_owner")
        app.ids["database"] = str(folder / "airflow.db")
        yield app


@pytest.fixture(scope="module")
def tokens(secured: SecuredApp) -> dict[str, str]:
    return {role: secured.session(role) for role in ROLES}


@pytest.fixture(scope="module")
def restore(secured: SecuredApp, tokens: dict[str, str]) -> Any:
    """Puts the database back to how it was seeded, after a request that changed it."""
    assert tokens
    kept = sqlite3.connect(":memory:", check_same_thread=False)
    with closing(sqlite3.connect(secured.ids["database"])) as source:
        source.backup(kept)

    def run() -> None:
        with closing(sqlite3.connect(secured.ids["database"], timeout=30)) as target:
            kept.backup(target)

    yield run
    kept.close()


def request_of(secured: SecuredApp, route: dict[str, str], side: str) -> tuple[str, dict[str, Any]]:
    """A request for a route that reaches its authorization."""
    path, method = route["path"], route["method"]
    whose = "own" if side == "all" else side
    ids = secured.ids
    values = {
        "dag_id": "~" if side == "all" else f"{whose}_dag",
        "dag_run_id": f"{whose}_run",
        "run_id": f"{whose}_run",
        "task_id": f"{whose}_task",
        "group_id": f"{whose}_group",
        "map_index": "-1",
        "try_number": "1",
        "task_try_number": "1",
        "version_number": "1",
        "xcom_key": f"{whose}_key",
        "key": f"{whose}_key",
        "section": "core",
        "option": "parallelism",
        "connection_id": f"{whose}_conn",
        "variable_key": f"{whose}_var",
        "pool_name": f"{whose}_pool",
        "asset_id": ids["asset"][whose],
        "asset_alias_id": ids["alias"][whose],
        "backfill_id": ids["backfill"][whose],
        "event_log_id": ids["event_log"][whose],
        "import_error_id": ids["import_error"][whose],
        "file_token": ids["file_token"][whose],
    }
    filled = re.sub(r"\{(\w+)(?::path)?\}", lambda found: str(values[found[1]]), path)
    options: dict[str, Any] = {}
    team = TEAMS[whose]
    if path in {"/ui/structure/structure_data", "/ui/backfills"}:
        options["params"] = {"dag_id": f"{whose}_dag"}
    elif path == "/ui/dashboard/historical_metrics_data":
        options["params"] = {"start_date": "2026-01-01T00:00:00Z"}
    if method in {"POST", "PATCH", "PUT"}:
        options["json"] = {}
    bodies: dict[tuple[str, str], dict[str, Any]] = {
        ("POST", "/api/v2/connections"): {"connection_id": f"{whose}_new", "conn_type": "http", "team_name": team},
        ("POST", "/api/v2/variables"): {"key": f"{whose}_new", "value": "1", "team_name": team},
        ("POST", "/api/v2/pools"): {"name": f"{whose}_new", "slots": 1, "team_name": team},
        ("POST", "/api/v2/connections/test"): {"connection_id": f"{whose}_conn", "conn_type": "http"},
        ("POST", "/api/v2/backfills"): {"dag_id": f"{whose}_dag"},
        ("POST", "/api/v2/backfills/dry_run"): {"dag_id": f"{whose}_dag"},
        ("PATCH", "/api/v2/dags/{dag_id}/dagRuns"): {
            "actions": [{"action": "delete", "entities": [f"{whose}_run"], "action_on_non_existence": "skip"}]
        },
        ("POST", "/api/v2/dags/{dag_id}/clearDagRuns"): {"dag_runs": [{"dag_run_id": f"{whose}_run"}], "dry_run": True},
        ("POST", "/ui/auth/token"): {"token_type": "api"},
    }
    for what, suffix in (("connections", "conn"), ("variables", "var"), ("pools", "pool")):
        bodies["PATCH", f"/api/v2/{what}"] = {
            "actions": [{"action": "delete", "entities": [f"{whose}_{suffix}"], "action_on_non_existence": "skip"}]
        }
    if (method, path) in bodies:
        options["json"] = bodies[method, path]
    return filled, options


def may(route: dict[str, str], role: str, side: str) -> bool:
    """What the tables say about a request."""
    if route["required_cells"] in {"dag_run_bulk", "dag_run_clear_bulk"} and side == "all":
        # Nothing in the body names a Dag: nothing is asked, and the service answers with an error for each entry.
        return True
    return all(granted(role, cell, side) for cell in cells_of(route))


def refused(route: dict[str, str], status: int) -> bool:
    return status == 403 or (status == 404 and route["path"].startswith(HIDDEN))


def test_the_table_names_every_route_of_the_installed_airflow(secured: SecuredApp) -> None:
    found = set()
    for route in secured.app.routes:
        methods = getattr(route, "methods", None)
        if methods and route.path.startswith(("/api/v2", "/ui")):
            found |= {(method, route.path) for method in methods - {"HEAD", "OPTIONS"}}
    named = {(route["method"], route["path"]) for route in ROUTES}
    assert found - named == set(), "a route that nobody has decided about"
    assert named - found == set(), "a route that is gone"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_what_the_tables_say_on_every_route(
    secured: SecuredApp, tokens: dict[str, str], restore: Any, role: str
) -> None:
    wrong = []
    for route in ROUTES:
        if (route["method"], route["path"]) in PUBLIC:
            continue
        for side in sides_of(route):
            path, options = request_of(secured, route, side)
            answer = secured.client.request(route["method"], path, token=tokens[role], **options)
            expected = may(route, role, side)
            if answer.status_code == 401 or answer.status_code >= 500 or refused(route, answer.status_code) == expected:
                wrong.append((route["method"], path, side, expected, answer.status_code, answer.text[:200]))
            if route["method"] != "GET" and answer.status_code < 300:
                restore()
    assert wrong == []


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("dag_viewer", "own"), ("dag_author", "own"), ("team_member", "own"), ("ws_accessor", ""), ("org_member", "")],
)
def test_no_answer_shows_what_belongs_to_others(
    secured: SecuredApp, tokens: dict[str, str], role: str, allowed: str
) -> None:
    leaks, shown = [], 0
    for route in ROUTES:
        if route["method"] != "GET" or (route["method"], route["path"]) in PUBLIC:
            continue
        for side in sides_of(route):
            if side == "foreign":
                continue
            path, options = request_of(secured, route, side)
            for query in ({}, {"dag_id": "own_dag"}):
                params = {**options.get("params", {}), **query}
                answer = secured.client.request("GET", path, token=tokens[role], **{**options, "params": params})
                if answer.status_code >= 400:
                    continue
                text = answer.text.replace("own_", "")
                shown += "own" in answer.text
                if "foreign" in text or "beta" in text:
                    leaks.append((path, query, text[:300]))
    assert leaks == []
    assert bool(shown) == bool(allowed)


def test_an_owner_sees_both_sides_so_that_the_leak_test_can_fail(secured: SecuredApp, tokens: dict[str, str]) -> None:
    seen = set()
    for route in ROUTES:
        if route["method"] == "GET" and route["row_filters"] and "{" not in route["path"]:
            path, options = request_of(secured, route, "all")
            if "params" in options and "dag_id" in options["params"]:
                continue
            answer = secured.client.request("GET", path, token=tokens["org_owner"], **options)
            if "foreign" in answer.text or "beta" in answer.text:
                seen.add(route["path"])
    filtered = {
        route["path"]
        for route in ROUTES
        if route["method"] == "GET" and route["row_filters"] and "{" not in route["path"]
    }
    # These answer with numbers, or only to a Dag that is named.
    assert filtered - seen <= {
        "/ui/dashboard/historical_metrics_data",
        "/ui/dashboard/dag_stats",
        "/ui/structure/structure_data",
        "/ui/backfills",
        "/ui/partitioned_dag_runs",
    }


CREDENTIALS = (
    "nobody",
    "nonsense",
    "expired",
    "wrong_audience",
    "other_key",
    "ended",
    "no_session",
    "alg_none",
    "huge",
)


@pytest.mark.parametrize("credential", CREDENTIALS)
def test_a_credential_that_is_not_accepted_gets_the_same_answer_everywhere(
    secured: SecuredApp, credential: str
) -> None:
    import jwt

    from tradewind.security.store import sessions

    good = secured.session("org_owner")
    claims = jwt.decode(good, options={"verify_signature": False})
    ended = secured.session("org_owner")
    if credential == "ended":
        sessions.revoke(jwt.decode(ended, options={"verify_signature": False})["sid"])
    token = {
        "nobody": None,
        "nonsense": "abc",
        "expired": secured.signed(claims, exp=1),
        "wrong_audience": secured.signed(claims, aud="urn:airflow.apache.org:task"),
        "other_key": jwt.encode(claims, "another secret" * 5, algorithm="HS512"),
        "ended": ended,
        "no_session": secured.signed({"sub": "org_owner", "kind": "user"}),
        "alg_none": jwt.encode(claims, None, algorithm="none"),
        "huge": "x" * 100_000,
    }[credential]
    wrong = []
    for route in ROUTES:
        key = (route["method"], route["path"])
        path, options = request_of(secured, route, sides_of(route)[0])
        answer = secured.client.request(route["method"], path, token=token, **options)
        expected = (401, '{"detail":"Not authenticated"}')
        if (key in PUBLIC) == ((answer.status_code, answer.text) == expected):
            wrong.append((key, answer.status_code, answer.text[:200]))
    assert wrong == []


def test_taking_any_cell_away_from_a_role_is_noticed(secured: SecuredApp, tokens: dict[str, str], restore: Any) -> None:
    """Cells that routes ask for: a role that lacks one is refused on every route that asks for it."""
    policy = Path(secured.manager.policies.path or "")
    original = policy.read_text(encoding="utf-8")
    asked = sorted({cell for route in ROUTES for cell in cells_of(route)})
    survivors = []
    try:
        for cell in asked:
            policy.write_text(f"{original}deny: [{{user: org_owner, cells: ['{cell}']}}]\n", encoding="utf-8")
            assert secured.manager.policies.refresh(), secured.manager.policies.problem
            time.sleep(2 * FRESH_SECONDS)
            for route in ROUTES:
                if cell not in cells_of(route):
                    continue
                for side in sides_of(route):
                    if side == "all" and "bulk" in route["required_cells"]:
                        continue
                    path, options = request_of(secured, route, side)
                    answer = secured.client.request(route["method"], path, token=tokens["org_owner"], **options)
                    if not refused(route, answer.status_code):
                        survivors.append((cell, route["method"], path, answer.status_code))
                    if route["method"] != "GET" and answer.status_code < 300:
                        restore()
    finally:
        policy.write_text(original, encoding="utf-8")
        secured.manager.policies.refresh()
        time.sleep(2 * FRESH_SECONDS)
    assert survivors == []
