# SPDX-License-Identifier: Apache-2.0
"""What holds for every answer of this app, whatever route gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import HTTPException, status

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["MOST_BYTES", "Transport"]

MOST_BYTES = 64 * 1024
"""The largest body that is read."""


class Transport:
    """ASGI middleware: nothing but static files may be kept by caches, and no body is larger than 64 KiB.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        static = scope["path"].startswith(f"{scope.get('root_path', '')}/static/")
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BYTES:
                raise HTTPException(status.HTTP_413_CONTENT_TOO_LARGE, f"Larger than {MOST_BYTES} bytes")
            return message

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start" and not static:
                headers = [header for header in message.get("headers", ()) if header[0].lower() != b"cache-control"]
                message["headers"] = [*headers, (b"cache-control", b"no-store")]
            await send(message)

        await self._app(scope, limited, marked)
