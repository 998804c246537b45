# SPDX-License-Identifier: Apache-2.0
"""The app that Airflow mounts at `/auth`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from fastapi import FastAPI, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from tradewind.security.api.pages import STATIC
from tradewind.security.api.routes import (
    account,
    bindings,
    insight,
    login,
    logout,
    people,
    sessions,
    token,
    tokens,
)
from tradewind.security.api.transport import Transport
from tradewind.security.exceptions import (
    ConflictError,
    InvalidValueError,
    NotFoundError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from tradewind.security.auth_manager import TradewindAuthManager

__all__ = ["PUBLIC", "create_app"]

log = logging.getLogger(__name__)

PUBLIC = frozenset(
    {
        ("GET", "/login"),
        ("POST", "/login"),
        ("GET", "/login/{issuer}"),
        ("GET", "/callback"),
        ("GET", "/logout"),
        ("GET", "/logged-out"),
        ("POST", "/logout/backchannel"),
        ("GET", "/password"),
        ("POST", "/password"),
        ("POST", "/token"),
        ("POST", "/token/cli"),
    }
)
"""The routes that answer without a credential; a test compares them with what the app has."""

_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"description": text}
    for code, text in (
        (400, "The request can't be read"),
        (401, "Not authenticated"),
        (403, "Not allowed"),
        (404, "There is no such thing"),
        (409, "It exists already, or was ended already"),
        (413, "The request is too large"),
        (503, "The database does not answer"),
    )
}


def create_app(manager: TradewindAuthManager) -> FastAPI:
    """Make the app.

    Args:
        manager: The auth manager that it belongs to.
    """
    app = FastAPI(
        title="Tradewind security",
        description="Logins, API tokens, bindings, users and teams.",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.manager = manager
    for module in (login, logout, token, account, tokens, sessions, bindings, people, insight):
        app.include_router(module.router, responses=_ERRORS)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(Transport)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InvalidValueError, _unusable)
    app.add_exception_handler(NotFoundError, _not_found)
    app.add_exception_handler(ConflictError, _conflict)
    app.add_exception_handler(StoreUnavailableError, _unavailable)
    return app


async def _http(_: Request, raised: Exception) -> JSONResponse:
    error = cast("HTTPException", raised)
    headers = {**(error.headers or {})}
    if error.status_code == status.HTTP_401_UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"detail": error.detail}, error.status_code, headers)


async def _invalid(_: Request, raised: Exception) -> JSONResponse:
    error = cast("RequestValidationError", raised)
    # What was given is left out: it may be a password in the wrong field.
    problems = [{key: problem[key] for key in ("loc", "msg", "type")} for problem in error.errors()]
    return JSONResponse({"detail": problems}, status.HTTP_422_UNPROCESSABLE_CONTENT)


async def _unusable(_: Request, error: Exception) -> JSONResponse:
    problem = {"loc": ["request"], "msg": str(error), "type": "value_error"}
    return JSONResponse({"detail": [problem]}, status.HTTP_422_UNPROCESSABLE_CONTENT)


async def _not_found(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status.HTTP_404_NOT_FOUND)


async def _conflict(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status.HTTP_409_CONFLICT)


async def _unavailable(_: Request, error: Exception) -> JSONResponse:
    log.error("A request was refused: %s", error)
    return JSONResponse({"detail": "Service unavailable"}, status.HTTP_503_SERVICE_UNAVAILABLE)
