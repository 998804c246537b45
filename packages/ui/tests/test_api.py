# SPDX-License-Identifier: Apache-2.0
"""The plugin inside Airflow's own application, with its own middlewares, auth manager and tokens."""

import gzip
import os
import secrets

import httpx
import pytest

from tradewind.ui import __version__, _assets, runtime_info

SCRIPT = f"/tradewind/static/footer.js?v={_assets.content_hash('footer.js')}"
RUNTIME = "/tradewind/api/v1/runtime"


def forget():
    """Let the next application load the facts and the plugins anew, whatever ran in this process before."""
    from airflow import plugins_manager

    runtime_info.load.cache_clear()
    for function in vars(plugins_manager).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


@pytest.fixture(scope="module")
def environment():
    set_here = {
        "TRADEWIND_IMAGE_TAG": "1.4.0-slim",
        "TRADEWIND_RUNTIME_VERSION": "1.4.0",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
    }
    before = {name: os.environ.get(name) for name in set_here}
    os.environ.update(set_here)
    forget()
    yield
    forget()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(scope="module")
def airflow_app(environment):
    from airflow.api_fastapi.app import create_app

    return create_app(apps="core")


@pytest.fixture
def http(airflow_app, airflow_db):
    return httpx.AsyncClient(transport=httpx.ASGITransport(airflow_app), base_url="http://127.0.0.1")


def token(name, role):
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    return get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=name, role=role))


async def test_an_anonymous_visitor_gets_401_as_json(http):
    answer = await http.get(RUNTIME)
    assert answer.status_code == 401
    assert answer.json() == {"detail": "Not authenticated"}


async def test_a_forged_token_gets_nothing(http):
    answer = await http.get(RUNTIME, headers={"Authorization": "Bearer e30.e30.e30"})
    assert answer.status_code in {401, 403}
    assert "1.4.0" not in answer.text


@pytest.mark.parametrize("role", ["viewer", "user", "op", "admin"])
async def test_every_role_sees_the_runtime(http, role):
    answer = await http.get(RUNTIME, headers={"Authorization": f"Bearer {token('someone', role)}"})
    assert answer.status_code == 200
    facts = answer.json()
    assert facts["product"] == "Tradewind Runtime"
    assert (facts["version"], facts["image_tag"], facts["ui"]) == ("1.4.0", "1.4.0-slim", __version__)
    assert facts["airflow"].startswith("3.3.")


async def test_a_user_without_a_role_is_forbidden(http):
    answer = await http.get(RUNTIME, headers={"Authorization": f"Bearer {token('nobody', None)}"})
    assert answer.status_code == 403
    assert "1.4.0" not in answer.text


async def test_the_browsers_cookie_is_enough(http):
    answer = await http.get(RUNTIME, headers={"Cookie": f"_token={token('someone', 'viewer')}"})
    assert answer.status_code == 200


async def test_the_answer_is_kept_by_no_cache(http):
    answer = await http.get(RUNTIME, headers={"Authorization": f"Bearer {token('someone', 'viewer')}"})
    assert answer.headers["cache-control"] == "private, no-store"


@pytest.mark.parametrize("path", ["/", "/dags", "/no/such/page", "/auth/login", "/docs", "/redoc"])
async def test_airflows_documents_have_the_footer_and_no_version(http, path):
    answer = await http.get(path)
    assert answer.status_code == 200
    assert answer.text.count("<tradewind-footer") == 1
    assert SCRIPT in answer.text
    assert "Tradewind Runtime" in answer.text
    assert "1.4.0" not in answer.text


@pytest.mark.parametrize("path", ["/api/v2/version", "/tradewind/static/footer.js", "/openapi.json", "/health"])
async def test_what_is_not_a_document_has_no_footer(http, path):
    assert "<tradewind-footer" not in (await http.get(path)).text


async def test_the_script_under_its_hash_is_kept_for_ever(http):
    answer = await http.get(SCRIPT)
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] in {"text/javascript", "application/javascript"}
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("query", ["", "?v=000000000000"])
async def test_the_script_under_another_url_is_revalidated(http, query):
    answer = await http.get(f"/tradewind/static/footer.js{query}")
    assert answer.headers["cache-control"] == "no-cache"
    again = await http.get(f"/tradewind/static/footer.js{query}", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("path", ["static/../api.py", "static/%2e%2e/api.py", "static/", "docs", "openapi.json"])
async def test_nothing_else_is_served(http, path):
    answer = await http.get(f"/tradewind/{path}")
    assert answer.status_code == 404


async def test_airflow_lists_the_plugin(http):
    answer = await http.get("/api/v2/plugins", headers={"Authorization": f"Bearer {token('a', 'admin')}"})
    (plugin,) = [p for p in answer.json()["plugins"] if p["name"] == "tradewind_ui"]
    assert plugin["fastapi_apps"][0]["url_prefix"] == "/tradewind"
    assert plugin["fastapi_root_middlewares"][0]["middleware"].endswith("FooterMiddleware")
    assert "tradewind-ui" in plugin["source"]


def test_the_script_is_at_most_2_kb_compressed():
    assert len(gzip.compress((_assets.STATIC / "footer.js").read_bytes())) <= 2048


def test_the_script_needs_no_framework_and_never_parses_data_as_html():
    source = (_assets.STATIC / "footer.js").read_text(encoding="utf-8")
    assert source.startswith("// SPDX-License-Identifier: Apache-2.0")
    for forbidden in ("innerHTML", "insertAdjacentHTML", "document.write", "eval(", "\nimport "):
        assert forbidden not in source
