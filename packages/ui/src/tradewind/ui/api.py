# SPDX-License-Identifier: Apache-2.0
"""The web application that the plugin mounts at `/tradewind`.

| path | who | what |
|---|---|---|
| `GET /tradewind/api/v1/runtime` | everyone who may see Airflow's website | facts about the runtime |
| `GET /tradewind/static/...` | everyone | the footer's script |

Airflow adds no authentication to a plugin's application, so each endpoint names its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import requires_access_view
from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import JSONResponse
from starlette.staticfiles import StaticFiles

from tradewind.ui._assets import STATIC, content_hash
from tradewind.ui.runtime_info import load

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope

__all__ = ["create_app"]

_router = APIRouter(prefix="/api/v1")


# WEBSITE is what an auth manager grants to whoever may look at Airflow at all, its lowest role included.
@_router.get("/runtime", dependencies=[Depends(requires_access_view(AccessView.WEBSITE))])
def _runtime() -> JSONResponse:
    """Say which runtime this api-server is: 401 before login, 403 without access to the website."""
    return JSONResponse(load().as_dict(), headers={"Cache-Control": "private, no-store"})


class _HashedFiles(StaticFiles):
    """Files that a browser keeps for ever under a URL with the hash of their content.

    Any other URL is revalidated, so that during a rollout no browser keeps one server's file under the
    hash that another server wrote into its pages.
    """

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("v")
        fresh = asked == [content_hash(path)]
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if fresh else "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def create_app() -> FastAPI:
    """Build the application, without documentation pages: those would show the API to anonymous people."""
    app = FastAPI(title="Tradewind UI", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(_router)
    app.mount("/static", _HashedFiles(directory=STATIC), name="tradewind_ui_static")
    return app
