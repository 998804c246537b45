# SPDX-License-Identifier: Apache-2.0
"""Session tokens for programs that have a local user's password."""

from __future__ import annotations

from typing import Annotated

from airflow.configuration import conf
from fastapi import APIRouter, Depends, HTTPException, Request, status
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from tradewind.security.api.guard import manager_of
from tradewind.security.api.models import AccessToken, Credentials
from tradewind.security.api.opening import check_password, open_session, principal_of_user
from tradewind.security.api.trail import note
from tradewind.security.exceptions import CredentialError

__all__ = ["router"]

router = APIRouter(tags=["Login"])

_FORM = "application/x-www-form-urlencoded"
_SCHEMA = Credentials.model_json_schema()
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _SCHEMA}, _FORM: {"schema": _SCHEMA}},
    }
}


async def _credentials(request: Request) -> Credentials:
    # Airflow's own documentation page posts a form, everybody else JSON.
    try:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
            form = await request.form()
            given: object = {name: form.get(name) for name in ("username", "password")}
        else:
            given = await request.json()
        return Credentials.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    except (ValueError, RecursionError, ClientDisconnect):
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "The body can't be read") from None


_Given = Annotated[Credentials, Depends(_credentials)]


@router.post("/token", status_code=status.HTTP_201_CREATED, openapi_extra=_BODY)
def create_token(request: Request, given: _Given) -> AccessToken:
    """Give a session token."""
    return _token(request, given, conf.getint("api_auth", "jwt_expiration_time"))


@router.post("/token/cli", status_code=status.HTTP_201_CREATED, openapi_extra=_BODY)
def create_cli_token(request: Request, given: _Given) -> AccessToken:
    """Give a session token for a command line."""
    return _token(request, given, conf.getint("api_auth", "jwt_cli_expiration_time"))


def _token(request: Request, given: Credentials, lifetime: int) -> AccessToken:
    try:
        user = check_password(request, given.username, given.password)
        if user.must_change_password:
            note(request, "login", subject=user.id, outcome="failure", reason="must_change_password")
            raise CredentialError("must_change_password", user.id)
    except CredentialError:
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Not authenticated") from None
    # It can't be renewed, so its session ends with it.
    who = open_session(request, principal_of_user(user), most_seconds=lifetime)
    token = manager_of(request).generate_jwt(who, expiration_time_in_seconds=lifetime)
    return AccessToken(access_token=token)
