# SPDX-License-Identifier: Apache-2.0
"""The end of a session, told by the browser or by the identity provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import jwt
from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from fastapi import APIRouter, Form, Request, Response, status
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from tradewind.security.api.cookies import clear_session
from tradewind.security.api.guard import manager_of
from tradewind.security.api.places import auth_path, public_url
from tradewind.security.api.trail import note
from tradewind.security.exceptions import CredentialError, NotFoundError, StoreUnavailableError
from tradewind.security.identity._verify import audiences, peek
from tradewind.security.principal import Principal

if TYPE_CHECKING:
    from tradewind.security.store.records import SessionRecord

__all__ = ["router"]

router = APIRouter(tags=["Login"], include_in_schema=False)


@router.get("/logout")
async def logout(request: Request) -> Response:
    """End the session here and at the identity provider."""
    response = RedirectResponse(await _after(request), status.HTTP_303_SEE_OTHER)
    clear_session(request, response)
    return response


@router.post("/logout/backchannel")
async def backchannel(request: Request, logout_token: Annotated[str, Form()] = "") -> Response:
    """End the sessions that an identity provider says are over (Back-Channel Logout 1.0)."""
    try:
        issuer, subject, session = await _verified(request, logout_token)
    except (CredentialError, StoreUnavailableError) as error:
        reason = error.reason if isinstance(error, CredentialError) else "unavailable"
        note(request, "logout.backchannel", outcome="failure", reason=reason)
        return JSONResponse({"error": "invalid_request"}, status.HTTP_400_BAD_REQUEST)
    ended = await run_in_threadpool(_revoke, issuer, session, subject)
    note(request, "logout.backchannel", subject=subject, issuer=issuer, sessions=ended)
    return Response(status_code=status.HTTP_200_OK)


async def _after(request: Request) -> str:
    record = await _session(request)
    if record is None or record.issuer is None:
        return auth_path("/logged-out")
    try:
        flow = manager_of(request).authenticator.providers.login(record.issuer)
        url = await flow.logout_url(public_url(request, "/logged-out"))
    except (NotFoundError, StoreUnavailableError):
        return auth_path("/logged-out")
    return url or auth_path("/logged-out")


async def _session(request: Request) -> SessionRecord | None:
    token = request.cookies.get(COOKIE_NAME_JWT_TOKEN)
    if not token:
        return None
    validator = manager_of(request)._get_token_validator()
    try:
        claims = await validator.avalidated_claims(token)
    except (jwt.InvalidTokenError, ValueError, TypeError, KeyError):
        return None
    return await run_in_threadpool(_ended, request, claims.get("sid"))


def _ended(request: Request, session_id: object) -> SessionRecord | None:
    from tradewind.security.store import sessions

    try:
        record = sessions.get(session_id if isinstance(session_id, str) else "")
    except NotFoundError:
        return None
    # Airflow's own logout has ended it already.
    if sessions.revoke(record.id):
        note(request, "logout", Principal(record.user_id, session=record.id))
    return record


def _revoke(issuer: str, session: str | None, subject: str | None) -> int:
    from tradewind.security.store import sessions

    return sessions.revoke_idp(issuer, idp_session=session, idp_subject=subject)


async def _verified(request: Request, token: str) -> tuple[str, str | None, str | None]:
    claims = peek(token)[1]
    providers = manager_of(request).authenticator.providers
    for issuer in providers.logins:
        if issuer.issuer == claims.get("iss") and issuer.client_id in audiences(claims):
            return (issuer.name, *await providers.login(issuer.name).verify_logout_token(token))
    raise CredentialError("untrusted_issuer")
