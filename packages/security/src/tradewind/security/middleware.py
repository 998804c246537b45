# SPDX-License-Identifier: Apache-2.0
"""Around the whole API server: who may reach plugins' apps and the documentation, headers, and audited denials.

Airflow mounts plugins' apps without any authentication, and its documentation is public. Everything that is
not one of Airflow's own routes asks for a login here, unless the policy lists it.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from fastapi import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from starlette.status import HTTP_401_UNAUTHORIZED, HTTP_403_FORBIDDEN, HTTP_503_SERVICE_UNAVAILABLE

from tradewind.security.exceptions import CredentialError, StoreUnavailableError
from tradewind.security.refusals import collect

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tradewind.security.auth_manager import TradewindAuthManager
    from tradewind.security.principal import Principal

__all__ = ["GUARDED", "GuardMiddleware"]

log = logging.getLogger(__name__)

GUARDED = ("/docs", "/redoc", "/openapi.json", "/execution/docs", "/execution/redoc", "/execution/openapi.json")
"""Documentation that asks for a login where the policy says `docs: authenticated`."""

_OWN = ("/api/v2", "/ui", "/execution", "/auth", "/pluginsv2", "/static")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"SAMEORIGIN"),
)
_DETAILS = {HTTP_401_UNAUTHORIZED: "Not authenticated", HTTP_403_FORBIDDEN: "Forbidden"}
_REASONS = {HTTP_401_UNAUTHORIZED: "not_authenticated", HTTP_403_FORBIDDEN: "forbidden"}
_HSTS = (b"strict-transport-security", b"max-age=31536000")


class GuardMiddleware:
    """ASGI middleware of the API server.

    Args:
        app: The application.
        manager: The auth manager.
    """

    def __init__(self, app: ASGIApp, manager: TradewindAuthManager) -> None:
        self.app = app
        self.manager = manager
        self._plugins: tuple[Mount, ...] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        refusals = collect()
        connection = HTTPConnection(scope)
        path = _path(scope)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.manager.settings.security_headers:
                    _add_headers(message, secure=connection.url.scheme == "https")
            await send(message)

        try:
            refusal = await self._refusal(connection, path) if self._needs_login(path, scope) else None
            if refusal is None:
                await self.app(scope, receive, answer)
            else:
                await _refuse(scope, answer, refusal, _DETAILS[refusal])
        except StoreUnavailableError as error:
            log.error("A request was refused, because nobody can be authenticated now: %s", error)  # noqa: TRY400
            if status:
                raise
            await _refuse(scope, answer, HTTP_503_SERVICE_UNAVAILABLE, "Service unavailable")
        if status in _REASONS:
            await self._audit(connection, path, status, refusals)

    def _needs_login(self, path: str, scope: Scope) -> bool:
        policy = self.manager.policies.current().file
        if _inside(path, policy.plugins.anonymous):
            return False
        if path in GUARDED:
            return policy.docs == "authenticated"
        if _inside(path, _OWN):
            return False
        return scope["type"] == "websocket" or self._is_plugin(path, scope)

    def _is_plugin(self, path: str, scope: Scope) -> bool:
        if self._plugins is None:
            routes = getattr(scope.get("app"), "routes", ())
            mounts = (route for route in routes if isinstance(route, Mount))
            self._plugins = tuple(mount for mount in mounts if mount.path and not _inside(mount.path, _OWN))
        # The router's own expression: a plugin's prefix may hold parameters.
        return any(mount.path_regex.match(path) or path == mount.path for mount in self._plugins)

    async def _refusal(self, connection: HTTPConnection, path: str) -> int | None:
        principal = await self._principal(connection)
        if principal is None:
            return HTTP_401_UNAUTHORIZED
        if self.manager.policies.current().file.plugins.default == "authenticated" or path in GUARDED:
            return None
        method: str = connection.scope.get("method", "GET")
        wanted = {"HEAD": "GET", "OPTIONS": "GET", "PATCH": "PUT"}.get(method, method)
        allowed = self.manager.is_authorized_custom_view(method=wanted, resource_name=path, user=principal)
        return None if allowed else HTTP_403_FORBIDDEN

    async def _principal(self, connection: HTTPConnection) -> Principal | None:
        token = _token(connection)
        if not token:
            return None
        try:
            return await self.manager.get_user_from_token(token)
        except HTTPException:
            return None

    async def _audit(
        self, connection: HTTPConnection, path: str, status: int, refusals: list[tuple[str, str | None]]
    ) -> None:
        principal = await self._known(connection)
        policy = self.manager.policies.current().file
        cell, resource = refusals[-1] if refusals else (None, None)
        client = connection.client
        self.manager.audit.record(
            "access",
            subject=principal.id if principal else None,
            subject_type=principal.kind if principal else "anonymous",
            outcome="denied",
            reason=f"lacks {cell}" if cell else _REASONS[status],
            method=connection.scope.get("method"),
            path=path,
            status=status,
            request_id=connection.headers.get("x-request-id"),
            source_ip=client.host if client else None,
            user_agent=connection.headers.get("user-agent"),
            organization=policy.organization,
            deployment=policy.deployment,
            **({"resource": resource} if resource else {}),
            **({"token": principal.token} if principal and principal.token else {}),
        )

    async def _known(self, connection: HTTPConnection) -> Principal | None:
        token = _token(connection)
        if not token:
            return None
        try:
            return await self.manager.authenticator.principal(token)
        except (CredentialError, StoreUnavailableError):
            return None


def _token(connection: HTTPConnection) -> str | None:
    scheme, _, credential = connection.headers.get("authorization", "").partition(" ")
    return credential if scheme.lower() == "bearer" else connection.cookies.get(COOKIE_NAME_JWT_TOKEN)


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root):
        path = path[len(root) :]
    return path if path.startswith("/") else f"/{path}"


def _inside(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(prefix.rstrip("/") + "/") for prefix in prefixes)


def _add_headers(message: Message, *, secure: bool) -> None:
    headers = message.setdefault("headers", [])
    present = {name.lower() for name, _ in headers}
    wanted = (*_HEADERS, _HSTS) if secure else _HEADERS
    message["headers"] = [*headers, *(header for header in wanted if header[0] not in present)]


async def _refuse(scope: Scope, send: Send, status: int, detail: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == HTTP_401_UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
