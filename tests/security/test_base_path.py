# SPDX-License-Identifier: Apache-2.0
"""A real API server below a path, behind a proxy that speaks https."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
from support.airflow_server import AirflowServer

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = "correct horse battery"  # noqa: S105 - of a server that lives for a test


def test_everything_works_below_a_path(tmp_path: Path) -> None:
    env = {
        "AIRFLOW__API__BASE_URL": "https://acme.example/team/airflow",
        "AIRFLOW__CORE__AUTH_MANAGER": "tradewind.security.auth_manager.TradewindAuthManager",
        "AIRFLOW__TRADEWIND_SECURITY__ADMIN_PASSWORD": PASSWORD,
    }
    with AirflowServer(tmp_path / "home", base_path="/team/airflow", env=env) as server:
        server.migrate()
        server.start_api_server()
        at = server.url.removesuffix("/team/airflow")
        with httpx.Client(base_url=at, timeout=30) as client:
            page = client.get("/team/airflow/auth/login").text
            assert 'action="/team/airflow/auth/login"' in page
            assert 'href="/team/airflow/auth/static/pages.css"' in page
            answer = client.post(
                "/team/airflow/auth/login",
                data={"username": "admin", "password": PASSWORD, "next": "/other/app"},
                headers={"Origin": "https://acme.example"},
            )
            assert answer.headers["location"] == "/team/airflow/"
            cookie = answer.headers.get_list("set-cookie")[0]
            assert "Path=/team/airflow/;" in cookie
            assert "; Secure" in cookie
            header = {"Cookie": cookie.split(";")[0]}
            assert client.get("/team/airflow/auth/whoami", headers=header).json()["id"] == "admin"
            left = client.get("/team/airflow/auth/logout", headers=header)
            assert left.headers["location"] == "/team/airflow/auth/logged-out"
