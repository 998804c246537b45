# SPDX-License-Identifier: Apache-2.0
"""The account page: who one is, one's password, tokens and logins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Path, Request, Response, status
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import ValidationError

from tradewind.security.api.guard import Caller, GuardedPage, demand, holds, manager_of
from tradewind.security.api.models import NewToken
from tradewind.security.api.pages import page
from tradewind.security.api.places import auth_path
from tradewind.security.api.routes.insight import holdings
from tradewind.security.api.routes.login import change_password
from tradewind.security.api.routes.sessions import end, own_sessions
from tradewind.security.api.routes.tokens import SELF, mint, revoke
from tradewind.security.api.trail import note
from tradewind.security.exceptions import CredentialError, InvalidValueError, NotFoundError

if TYPE_CHECKING:
    from tradewind.security.principal import Principal

__all__ = ["router"]

router = APIRouter(tags=["Account"], route_class=GuardedPage, include_in_schema=False, prefix="/account")

_Field = Annotated[str, Form()]
_DAY = 86400


@router.get("", response_class=HTMLResponse)
def show(request: Request, caller: Caller) -> Response:
    """Show all of it."""
    return _account(request, caller)


@router.post("/password", response_class=HTMLResponse)
def password(
    request: Request, caller: Caller, current: _Field = "", password: _Field = "", repeat: _Field = ""
) -> Response:
    """Change the password; other logins end."""
    _demand_session(caller)
    try:
        change_password(request, caller.id, current, password, repeat, keep_session=caller.session)
    except CredentialError:
        return _account(request, caller, status.HTTP_401_UNAUTHORIZED, problem="The current password is wrong")
    except InvalidValueError as error:
        return _account(request, caller, status.HTTP_422_UNPROCESSABLE_CONTENT, problem=str(error))
    note(request, "password.changed", caller)
    return _account(request, caller, notice="The password is changed, and your other logins have ended.")


@router.post("/tokens", response_class=HTMLResponse)
def create_token(
    request: Request, caller: Caller, name: _Field = "", days: _Field = "", scopes: _Field = ""
) -> Response:
    """Make an API token, and show it this once."""
    _demand_session(caller)
    demand(request, caller, SELF)
    try:
        wanted = NewToken(name=name.strip(), expires_in=int(days) * _DAY, scopes=scopes.split() or None)
        record, text = mint(request, caller, wanted)
    except (ValidationError, InvalidValueError, ValueError) as error:
        problem = str(error) if isinstance(error, InvalidValueError) else "A token needs a name, and 1 to 366 days"
        return _account(request, caller, status.HTTP_422_UNPROCESSABLE_CONTENT, problem=problem)
    return _account(request, caller, status.HTTP_201_CREATED, minted=(record.name, text))


@router.post("/tokens/{token_id}/revoke")
def revoke_token(
    request: Request, caller: Caller, token_id: Annotated[str, Path(pattern="^[0-9a-f]{16}$")]
) -> Response:
    """End one of one's own tokens."""
    _demand_session(caller)
    demand(request, caller, SELF)
    revoke(request, caller, token_id)
    return _back()


@router.post("/sessions/{session_id}/end")
def end_session(
    request: Request, caller: Caller, session_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
) -> Response:
    """End one of one's own logins."""
    _demand_session(caller)
    end(request, caller, session_id)
    return _back()


def _demand_session(caller: Principal) -> None:
    if caller.session is None:
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Forbidden")


def _back() -> Response:
    return RedirectResponse(auth_path("/account"), status.HTTP_303_SEE_OTHER)


def _account(request: Request, caller: Principal, code: int = status.HTTP_200_OK, **said: Any) -> Response:
    from tradewind.security.store import tokens, users

    _demand_session(caller)
    try:
        local = users.get(caller.id).has_password
    except NotFoundError:
        local = False
    manages = holds(manager_of(request), caller, SELF)
    own = [token for token in tokens.list_tokens(caller.id) if token.owner_kind == caller.kind] if manages else []
    content = {"notice": None, "problem": None, "minted": None, **said}
    return page(
        request,
        "account.html",
        code,
        who=caller,
        roles=holdings(request, caller),
        local=local,
        manages=manages,
        tokens=[token for token in own if token.revoked_at is None],
        sessions=own_sessions(caller),
        **content,
    )
