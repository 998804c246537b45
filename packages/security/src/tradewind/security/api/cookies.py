# SPDX-License-Identifier: Apache-2.0
"""The cookies of this app: Airflow's session cookie, and signed ones that serve one purpose for minutes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.app import get_cookie_path
from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from airflow.configuration import conf
from itsdangerous import BadData, URLSafeTimedSerializer

from tradewind.security.api.places import auth_path, is_https

if TYPE_CHECKING:
    from typing import Literal

    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["SignedCookie", "clear_session", "set_session"]


def set_session(request: Request, response: Response, token: str) -> None:
    """Give a browser its session, with the same attributes as Airflow gives it when it renews it.

    Args:
        request: The request.
        response: Its answer.
        token: The session token.
    """
    path, secure = get_cookie_path(), is_https(request)
    response.set_cookie(COOKIE_NAME_JWT_TOKEN, token, path=path, secure=secure, httponly=True, samesite="lax")
    if path != "/":
        # One that was left at the root would be sent too.
        response.delete_cookie(COOKIE_NAME_JWT_TOKEN, path="/", secure=secure, httponly=True, samesite="lax")


def clear_session(request: Request, response: Response) -> None:
    """Take a browser's session away."""
    for path in {get_cookie_path(), "/"}:
        response.delete_cookie(
            COOKIE_NAME_JWT_TOKEN, path=path, secure=is_https(request), httponly=True, samesite="lax"
        )


class SignedCookie:
    """A cookie whose content only we can make, of one purpose, for this app's paths only.

    Args:
        purpose: Goes into the key, so that no other cookie of ours is accepted instead.
        max_age: How long it is accepted, in seconds.
        same_site: `lax` where the browser comes back from another site.
    """

    def __init__(self, purpose: str, *, max_age: int, same_site: Literal["lax", "strict"]) -> None:
        self._purpose = purpose
        self._max_age = max_age
        self._same_site = same_site

    def put(self, request: Request, response: Response, name: str, content: dict[str, Any]) -> None:
        """Set it.

        Args:
            request: The request.
            response: Its answer.
            name: Name of the cookie.
            content: What it carries; the browser's owner can read it.
        """
        response.set_cookie(
            name,
            self._serializer().dumps(content),
            max_age=self._max_age,
            path=auth_path(),
            secure=is_https(request),
            httponly=True,
            samesite=self._same_site,
        )

    def get(self, request: Request, name: str) -> dict[str, Any] | None:
        """Give what it carries, or None where it is missing, forged or too old.

        Args:
            request: The request.
            name: Name of the cookie.
        """
        try:
            content = self._serializer().loads(request.cookies.get(name, ""), max_age=self._max_age)
        except BadData:
            return None
        return content if isinstance(content, dict) else None

    def clear(self, request: Request, response: Response, name: str) -> None:
        """Take it away."""
        response.delete_cookie(
            name, path=auth_path(), secure=is_https(request), httponly=True, samesite=self._same_site
        )

    def _serializer(self) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(
            conf.get_mandatory_value("api", "secret_key"),
            salt=f"tradewind.security.{self._purpose}",
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )
