# SPDX-License-Identifier: Apache-2.0
"""Logins in a browser: with a password, or at an identity provider."""

from __future__ import annotations

import hmac
import logging
import re
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Form, Query, Request, Response, status
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from tradewind.security.api.cookies import SignedCookie, set_session
from tradewind.security.api.guard import manager_of
from tradewind.security.api.opening import (
    check_password,
    open_session,
    principal_of_user,
    refuse_local_name,
    session_token,
)
from tradewind.security.api.pages import login_link, message, page
from tradewind.security.api.places import auth_path, is_own_origin, public_url, safe_next
from tradewind.security.api.trail import note
from tradewind.security.exceptions import (
    CredentialError,
    InvalidValueError,
    NotFoundError,
    SettingsError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from tradewind.security.identity.oidc import Login
    from tradewind.security.policy.schema import Issuer
    from tradewind.security.principal import Principal

__all__ = ["change_password", "router"]

log = logging.getLogger(__name__)

router = APIRouter(tags=["Login"], include_in_schema=False)

_TRANSACTION = SignedCookie("login", max_age=300, same_site="lax")
_TRANSACTION_NAME = "_tradewind_login_"
_MOST_TRANSACTIONS = 4
_CHANGE = SignedCookie("password", max_age=600, same_site="strict")
_CHANGE_NAME = "_tradewind_password"
_STATE = re.compile(r"[A-Za-z0-9_-]{20,128}")

_Next = Annotated[str, Query(alias="next")]
_NextField = Annotated[str, Form(alias="next")]
_Field = Annotated[str, Form()]


@router.get("/login", response_class=HTMLResponse)
async def login_page(request: Request, wanted: _Next = "", local: str = "") -> Response:
    """Lead to the only identity provider, or offer what there is."""
    providers = manager_of(request).authenticator.providers.logins
    if len(providers) == 1 and not local:
        return await _begin(request, providers[0], wanted)
    return await run_in_threadpool(_login_page, request, wanted, local=bool(local))


@router.get("/logged-out", response_class=HTMLResponse)
def logged_out(request: Request) -> Response:
    """Say so, and do not log in again at once."""
    return _login_page(request, "", notice="You are logged out.")


@router.post("/login", response_class=HTMLResponse)
def login_with_password(
    request: Request, username: _Field = "", password: _Field = "", wanted: _NextField = ""
) -> Response:
    """Open a session for a local user."""
    if not is_own_origin(request):
        note(request, "login", outcome="denied", reason="foreign_origin")
        return _login_page(request, "", status.HTTP_403_FORBIDDEN, problem="Please log in from this page.", local=True)
    try:
        user = check_password(request, username, password)
    except CredentialError:
        return _login_page(request, wanted, status.HTTP_401_UNAUTHORIZED, problem="Wrong name or password", local=True)
    if user.must_change_password:
        response = RedirectResponse(auth_path("/password"), status.HTTP_303_SEE_OTHER)
        _CHANGE.put(request, response, _CHANGE_NAME, {"user": user.id, "next": safe_next(request, wanted)})
        return response
    return _entered(request, open_session(request, principal_of_user(user)), wanted)


@router.get("/password", response_class=HTMLResponse)
def password_page(request: Request) -> Response:
    """Let a user who logged in with a password for once choose another."""
    change = _CHANGE.get(request, _CHANGE_NAME)
    if change is None:
        return RedirectResponse(login_link(local=True), status.HTTP_303_SEE_OTHER)
    return page(request, "password.html", user=change["user"], problem=None)


@router.post("/password", response_class=HTMLResponse)
def set_first_password(request: Request, current: _Field = "", password: _Field = "", repeat: _Field = "") -> Response:
    """Change the password that had to be changed, and open a session."""
    change = _CHANGE.get(request, _CHANGE_NAME)
    if change is None or not is_own_origin(request):
        return RedirectResponse(login_link(local=True), status.HTTP_303_SEE_OTHER)
    name = str(change["user"])
    try:
        change_password(request, name, current, password, repeat)
    except (CredentialError, InvalidValueError) as error:
        problem, code = _problem_of(error)
        return page(request, "password.html", code, user=name, problem=problem)
    from tradewind.security.store import users

    who = principal_of_user(users.get(name))
    note(request, "password.changed", who)
    response = _entered(request, open_session(request, who), str(change["next"]))
    _CHANGE.clear(request, response, _CHANGE_NAME)
    return response


def change_password(
    request: Request, user_id: str, current: str, password: str, repeat: str, *, keep_session: str | None = None
) -> None:
    """Give a local user another password, whoever knows the current one.

    Args:
        request: The request.
        user_id: Whose.
        current: What was given as the current password.
        password: The new one.
        repeat: The new one again.
        keep_session: Id of the session that goes on.

    Raises:
        CredentialError: The current password is wrong.
        InvalidValueError: The new one can't be used.
        StoreUnavailableError: The database does not answer.
    """
    from tradewind.security.store import users

    if not hmac.compare_digest(password.encode("utf-8", "replace"), repeat.encode("utf-8", "replace")):
        raise InvalidValueError("The two new passwords differ")
    if hmac.compare_digest(password.encode("utf-8", "replace"), current.encode("utf-8", "replace")):
        raise InvalidValueError("The new password is the current one")
    user = check_password(request, user_id, current)
    users.set_password(user.id, password, keep_session=keep_session)


def _problem_of(error: Exception) -> tuple[str, int]:
    if isinstance(error, CredentialError):
        return "The current password is wrong", status.HTTP_401_UNAUTHORIZED
    return str(error), status.HTTP_422_UNPROCESSABLE_CONTENT


@router.get("/login/{issuer}")
async def login_at_provider(request: Request, issuer: str, wanted: _Next = "") -> Response:
    """Lead to an identity provider."""
    for entry in manager_of(request).authenticator.providers.logins:
        if entry.name == issuer:
            return await _begin(request, entry, wanted)
    return message(
        request, "There is no such login", "No identity provider of that name is known.", 404, ("Log in", login_link())
    )


@router.get("/callback")
async def callback(request: Request) -> Response:
    """Take what the identity provider sends along with the browser."""
    parameters = dict(request.query_params)
    # Airflow's access log reads it when the answer is sent; the code in it is a secret.
    request.scope["query_string"] = b""
    name = _transaction_name(parameters.get("state", ""))
    try:
        response = await _finish(request, _TRANSACTION.get(request, name), parameters)
    except CredentialError as error:
        note(request, "login", subject=error.subject, outcome="failure", reason=error.reason)
        response = _failed(request)
    except StoreUnavailableError as error:
        note(request, "login", outcome="failure", reason="unavailable")
        log.warning("A login could not be finished: %s", error)
        response = message(
            request,
            "The login could not be finished",
            "The identity provider or the database does not answer. Please try again in a moment.",
            status.HTTP_503_SERVICE_UNAVAILABLE,
            ("Try again", login_link()),
        )
    _TRANSACTION.clear(request, response, name)
    return response


async def _begin(request: Request, issuer: Issuer, wanted: str) -> Response:
    flow = manager_of(request).authenticator.providers.login(issuer.name)
    try:
        url, transaction = await flow.begin(public_url(request, "/callback"), safe_next(request, wanted))
    except StoreUnavailableError:
        return await run_in_threadpool(
            _login_page,
            request,
            wanted,
            status.HTTP_503_SERVICE_UNAVAILABLE,
            problem=f"{issuer.label or issuer.name} does not answer. Please try again in a moment.",
        )
    response = RedirectResponse(url, status.HTTP_303_SEE_OTHER)
    waiting = [name for name in request.cookies if name.startswith(_TRANSACTION_NAME)]
    if len(waiting) >= _MOST_TRANSACTIONS:
        # Proxies refuse requests whose cookies are larger than some 8 KiB.
        for name in waiting:
            _TRANSACTION.clear(request, response, name)
    _TRANSACTION.put(request, response, _transaction_name(transaction["state"]), dict(transaction))
    return response


async def _finish(request: Request, transaction: dict[str, object] | None, parameters: dict[str, str]) -> Response:
    if transaction is None:
        raise CredentialError("no_transaction")
    try:
        flow = manager_of(request).authenticator.providers.login(str(transaction.get("issuer")))
        login = await flow.finish(transaction, parameters)
        who = await run_in_threadpool(_open_at_provider, request, login)
    except NotFoundError:
        raise CredentialError("unknown_issuer") from None
    except InvalidValueError:
        raise CredentialError("unusable_claims") from None
    except SettingsError as error:
        raise StoreUnavailableError(str(error)) from None
    return await run_in_threadpool(_entered, request, who, login.next)


def _open_at_provider(request: Request, login: Login) -> Principal:
    from tradewind.security.store import tokens

    refuse_local_name(request, login)
    who = open_session(request, login.principal, login=login)
    tokens.update_groups(who.id, who.groups)
    return who


def _entered(request: Request, who: Principal, wanted: str) -> Response:
    response = RedirectResponse(safe_next(request, wanted), status.HTTP_303_SEE_OTHER)
    set_session(request, response, session_token(request, who))
    return response


def _failed(request: Request) -> Response:
    return message(
        request,
        "The login did not succeed",
        "Please try again. If it happens again, ask an administrator: the audit log says why.",
        status.HTTP_401_UNAUTHORIZED,
        ("Try again", login_link()),
    )


def _login_page(
    request: Request,
    wanted: str,
    code: int = status.HTTP_200_OK,
    *,
    problem: str | None = None,
    notice: str | None = None,
    local: bool = False,
) -> Response:
    from tradewind.security.store import users

    providers = manager_of(request).authenticator.providers.logins
    wanted = safe_next(request, wanted) if wanted else ""
    buttons = [(entry.label or entry.name, entry.name) for entry in providers]
    form = local or not buttons or any(user.has_password for user in users.list_users("user"))
    return page(request, "login.html", code, buttons=buttons, form=form, wanted=wanted, problem=problem, notice=notice)


def _transaction_name(state: str) -> str:
    # A cookie for each login, so that tabs that begin one at the same time do not end each other's.
    return f"{_TRANSACTION_NAME}{state[:16] if _STATE.fullmatch(state) else 'none'}"
