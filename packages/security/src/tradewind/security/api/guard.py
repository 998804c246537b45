# SPDX-License-Identifier: Apache-2.0
"""Who may use a route, decided before anything of the request is read or validated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast
from urllib.parse import urlencode

from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from fastapi import Depends, HTTPException, Request, status
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from tradewind.security.api.places import auth_path, is_own_origin
from tradewind.security.policy.cells import BITS
from tradewind.security.principal import Principal
from tradewind.security.refusals import refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.responses import Response

    from tradewind.security.auth_manager import TradewindAuthManager

__all__ = ["Caller", "GuardedPage", "GuardedRoute", "demand", "holds", "manager_of", "needs"]

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PRINCIPAL = "tradewind.security.principal"
_bearer = HTTPBearer(auto_error=False)
_Endpoint = TypeVar("_Endpoint", bound="Callable[..., Any]")


def needs(cell: str) -> Callable[[_Endpoint], _Endpoint]:
    """Let only those use a route who hold a cell.

    Args:
        cell: The cell.
    """
    if cell not in BITS:
        raise KeyError(cell)

    def mark(endpoint: _Endpoint) -> _Endpoint:
        endpoint.cell = cell  # type: ignore[attr-defined]  # read by GuardedRoute
        return endpoint

    return mark


def manager_of(request: Request) -> TradewindAuthManager:
    """Give the auth manager that an app was made for."""
    return cast("TradewindAuthManager", request.app.state.manager)


def holds(manager: TradewindAuthManager, principal: Principal, cell: str) -> bool:
    """Tell whether a principal holds a cell at the whole deployment.

    Args:
        manager: Knows the rules.
        principal: Who.
        cell: What.
    """
    return bool(manager.rules.of(principal).base & BITS[cell])


def demand(request: Request, principal: Principal, cell: str) -> None:
    """Refuse a request of somebody who does not hold a cell.

    Args:
        request: The request.
        principal: Who.
        cell: What.

    Raises:
        HTTPException: 403.
    """
    if not holds(manager_of(request), principal, cell):
        refuse(cell, None)
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Forbidden")


class GuardedRoute(APIRoute):
    """A route for those who are authenticated, and who hold the cell that `needs` names.

    FastAPI reads and parses a body before it calls dependencies; this refuses before that.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Give what answers a request."""
        answer = super().get_route_handler()
        cell: str | None = getattr(self.endpoint, "cell", None)

        async def guarded(request: Request) -> Response:
            try:
                request.scope[_PRINCIPAL] = await _admit(request, cell)
            except HTTPException as error:
                return self.refused(request, error)
            return await answer(request)

        return guarded

    def refused(self, request: Request, error: HTTPException) -> Response:
        """Give the answer to somebody who may not.

        Raises:
            HTTPException: 401 or 403.
        """
        raise error


class GuardedPage(GuardedRoute):
    """A page: whoever is not logged in is sent to do so."""

    def refused(self, request: Request, error: HTTPException) -> Response:
        """Give the answer to somebody who may not.

        Raises:
            HTTPException: 403, or 401 for what is no page view.
        """
        if error.status_code == status.HTTP_401_UNAUTHORIZED and request.method == "GET":
            query = urlencode({"next": request.url.path})
            return RedirectResponse(f"{auth_path('/login')}?{query}", status.HTTP_303_SEE_OTHER)
        raise error


async def _admit(request: Request, cell: str | None) -> Principal:
    credentials = await _bearer(request)
    token = credentials.credentials if credentials else request.cookies.get(COOKIE_NAME_JWT_TOKEN)
    if not token:
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Not authenticated")
    principal = await manager_of(request).get_user_from_token(token)
    if credentials is None and request.method not in _SAFE_METHODS and not is_own_origin(request):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Forbidden")
    if cell is not None:
        await run_in_threadpool(demand, request, principal, cell)
    return principal


def _caller(request: Request) -> Principal:
    # A KeyError on a route that is not guarded: it fails closed.
    return cast("Principal", request.scope[_PRINCIPAL])


Caller = Annotated[Principal, Depends(_caller)]
"""Who makes the request, in the signature of a guarded route."""
