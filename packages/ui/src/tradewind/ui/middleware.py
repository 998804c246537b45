# SPDX-License-Identifier: Apache-2.0
"""Puts the footer's element into every HTML document that this server answers.

`FooterMiddleware` is plain ASGI, needs nothing of Airflow and works in any Starlette or FastAPI app.
What it writes is public by design, because Airflow serves the same documents to anonymous people: the
product's name, the links, and the address of a script.
"""

from __future__ import annotations

import html
import json
import logging
import re
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tradewind.ui.runtime_info import Link

__all__ = ["MAX_DOCUMENT_BYTES", "FooterMiddleware", "insert_footer"]

log = logging.getLogger(__name__)

MAX_DOCUMENT_BYTES = 1024 * 1024
"""Airflow's own documents are under 4 KB; something larger than this is no page for people."""

_ELEMENT = b"<tradewind-footer"
_END_OF_BODY = re.compile(rb"</body\s*>", re.IGNORECASE)
_STATUSES_WITHOUT_A_WHOLE_DOCUMENT = frozenset({204, 205, 206, 304})
# They describe bytes that are no longer the ones sent, and a kept validator would let a browser hold on
# to the document as it was before the footer's configuration changed.
_HEADERS_OF_THE_OLD_BYTES = frozenset(
    {
        b"accept-ranges",
        b"content-digest",
        b"content-length",
        b"content-md5",
        b"digest",
        b"etag",
        b"last-modified",
        b"repr-digest",
    }
)


def insert_footer(document: bytes, markup: bytes) -> bytes:
    """Give the document with the markup before its last `</body>`.

    Args:
        document: HTML in an encoding that contains ASCII.
        markup: What to insert, in ASCII.

    Returns:
        The same document where it has no `</body>`, or a footer already.

    >>> insert_footer(b"<body>Dags</BODY></html>", b"<tradewind-footer></tradewind-footer>")
    b'<body>Dags<tradewind-footer></tradewind-footer></BODY></html>'
    """
    if _ELEMENT in document:
        return document
    places = [found.start() for found in _END_OF_BODY.finditer(document)]
    if not places:
        return document
    return document[: places[-1]] + markup + document[places[-1] :]


class FooterMiddleware:
    """ASGI middleware that inserts `<tradewind-footer>` and its script before the last `</body>`.

    Touched is a `text/html` document without content-encoding that comes in one message, or in several
    with a declared length. Everything else passes as it is and unbuffered: streams of unknown length,
    documents larger than `max_document_bytes`, partial content, other media types, websockets. The
    answer to HEAD loses the headers that the answer to GET would not carry. An error in here is logged
    once, and the response goes out as the application made it.

    Args:
        app: The application.
        product: The product's name, which anonymous people see.
        links: What the footer links to, which anonymous people see too.
        script: The script's path below the application's root path.
        max_document_bytes: The largest document to hold in memory.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        product: str,
        links: Iterable[Link],
        script: str,
        max_document_bytes: int = MAX_DOCUMENT_BYTES,
    ) -> None:
        self._app = app
        data = json.dumps([asdict(link) for link in links], separators=(",", ":"))
        self._element = f'<tradewind-footer product="{html.escape(product)}" links="{html.escape(data)}">'
        self._script = script
        self._max_document_bytes = max_document_bytes
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Read now: routing writes the path of the mounted application into the same dict.
        root_path = scope.get("root_path", "")
        response = _Response(self, send, root_path=root_path, head=scope["method"] == "HEAD")
        await self._app(scope, receive, response.send)
        # An application that ended before its last message has still said what is held here.
        await response.release()

    def holds(self, start: Message) -> bool:
        """Whether a response that starts like this is a document to put the footer into.

        Args:
            start: The message `http.response.start`.
        """
        if start["status"] in _STATUSES_WITHOUT_A_WHOLE_DOCUMENT or start.get("trailers"):
            return False
        headers = dict(start.get("headers", ()))
        media_type, _, _ = headers.get(b"content-type", b"").partition(b";")
        return (
            media_type.strip().lower() == b"text/html"
            and b"content-encoding" not in headers
            and int(headers.get(b"content-length", b"0")) <= self._max_document_bytes
        )

    def waits(self, start: Message, size_bytes: int) -> bool:
        """Whether to wait for the rest of a body.

        Args:
            start: The message `http.response.start`.
            size_bytes: How much of the body is there.
        """
        # Without a declared length it may be a stream that people watch as it comes.
        return size_bytes <= self._max_document_bytes and b"content-length" in dict(start["headers"])

    def markup(self, root_path: str) -> bytes:
        """What to insert.

        Args:
            root_path: The path under which a proxy publishes the application, "" for none.
        """
        prefix = root_path.strip("/")
        source = html.escape(f"/{prefix}{self._script}" if prefix else self._script)
        # async: our style sheet is there before Airflow's own, large script draws the page.
        text = f'{self._element}</tradewind-footer><script type="module" async src="{source}"></script>'
        return text.encode("ascii", "xmlcharrefreplace")

    def warn(self, error: Exception) -> None:
        """Log the first error."""
        if not self._warned:
            self._warned = True
            log.warning("The footer is left out of a page because of an error in it", exc_info=error)


class _Response:
    """One response on its way; holds its messages back until it is known whether they change."""

    def __init__(self, middleware: FooterMiddleware, send: Send, *, root_path: str, head: bool) -> None:
        self._middleware = middleware
        self._send = send
        self._root_path = root_path
        self._head = head
        self._held: list[Message] = []
        self._size_bytes = 0

    async def send(self, message: Message) -> None:
        """Take one message of the application."""
        self._held.append(message)
        try:
            outgoing = self._decide(message)
        except Exception as error:  # noqa: BLE001 (whatever is wrong in here, the response goes out)
            self._middleware.warn(error)
            outgoing = self._held
        if outgoing is not None:
            self._held = outgoing
            await self.release()

    async def release(self) -> None:
        """Send what is held."""
        held, self._held = self._held, []
        for message in held:
            await self._send(message)

    def _decide(self, message: Message) -> list[Message] | None:
        """The messages to send now, or None to hold them; `message` is the last one held."""
        start = self._held[0]
        if message["type"] == "http.response.start":
            if not self._middleware.holds(start):
                return self._held
            return [_without_headers_of_the_old_bytes(start)] if self._head else None
        if message is start or message["type"] != "http.response.body":
            # The start has gone, or the server reads the body itself (http.response.pathsend).
            return self._held
        self._size_bytes += len(message.get("body", b""))
        if message.get("more_body", False):
            return None if self._middleware.waits(start, self._size_bytes) else self._held
        document = b"".join(part.get("body", b"") for part in self._held[1:])
        changed = insert_footer(document, self._middleware.markup(self._root_path))
        if changed is document:
            return self._held
        start = _without_headers_of_the_old_bytes(start)
        start["headers"].append((b"content-length", str(len(changed)).encode()))
        return [start, {"type": "http.response.body", "body": changed}]


def _without_headers_of_the_old_bytes(start: Message) -> Message:
    kept = [(name, value) for name, value in start["headers"] if name.lower() not in _HEADERS_OF_THE_OLD_BYTES]
    return {**start, "headers": kept}
