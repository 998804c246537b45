# SPDX-License-Identifier: Apache-2.0
"""A real HTTP proxy in front of a local S3 server that answers wrongly, not at all, or cuts the connection.

    with FaultyProxy(s3.port) as proxy:
        proxy.next(5, "SlowDown")
        proxy.next(1, "cut", method="PUT", query="partNumber=2")

What is not told to fail is passed on whole: a request that was cut never reaches the server.
"""

from __future__ import annotations

import http.client
import os
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FaultyProxy"]

Kind = Literal["InternalError", "SlowDown", "ExpiredToken", "cut", "hang", "hold", "lose"]

_STATUS = {"InternalError": 500, "SlowDown": 503, "ExpiredToken": 403}
_MESSAGE = {
    "InternalError": "We encountered an internal error. Please try again.",
    "SlowDown": "Please reduce your request rate.",
    "ExpiredToken": "The provided token has expired.",
}
_BODY_BLOCK = 1 << 16


@dataclass
class _Fault:
    kind: Kind
    left: int
    applies: Callable[[str, str, str], bool]


class FaultyProxy:
    """A proxy on 127.0.0.1.

    Args:
        server_port: Port of the real server on 127.0.0.1.
    """

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.requests: list[tuple[str, str]] = []
        self.failed: list[tuple[str, str, str]] = []
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._healed = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def handle_one_request(self) -> None:
                with suppress(OSError):
                    super().handle_one_request()
                    return
                self.close_connection = True

            def log_message(self, *_args: object) -> None:
                pass

            def serve(self) -> None:
                proxy._serve(self)

        for method in ("DELETE", "GET", "HEAD", "POST", "PUT"):
            setattr(Handler, f"do_{method}", Handler.serve)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def __enter__(self) -> FaultyProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def next(self, times: int, kind: Kind, *, method: str = "", query: str = "", credential: str = "") -> None:
        """Let requests fail.

        Args:
            times: How many of those that match.
            kind: `cut`: the connection is reset in the middle of the body; `hang`: no answer before the proxy
                ends; `hold`: it is passed on after `heal`; `lose`: the server does it, and its answer is lost in
                a reset; else S3's error.
            method: Only requests of this method.
            query: Only requests whose target contains this.
            credential: Only requests signed with this access key.
        """

        def applies(verb: str, target: str, signature: str) -> bool:
            return (not method or verb == method) and query in target and f"Credential={credential}" in signature

        with self._lock:
            self._faults.append(_Fault(kind, times, applies))

    def heal(self) -> None:
        """Pass everything on from now on."""
        with self._lock:
            self._faults.clear()
        self._healed.set()

    def _fault(self, handler: BaseHTTPRequestHandler) -> Kind | None:
        signature = handler.headers.get("Authorization", "")
        with self._lock:
            self.requests.append((handler.command, handler.path))
            for fault in self._faults:
                if fault.left > 0 and fault.applies(handler.command, handler.path, signature):
                    fault.left -= 1
                    self.failed.append((fault.kind, handler.command, handler.path))
                    return fault.kind
        return None

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        kind = self._fault(handler)
        if kind == "cut":
            size = int(handler.headers.get("Content-Length") or 0)
            handler.rfile.read(min(size // 2, _BODY_BLOCK))
            self._reset(handler)
            return
        body = self._body(handler)
        if kind == "hang":
            self._closing.wait(120)
            handler.close_connection = True
        elif kind == "lose":
            self._forward(handler, body)
            self._reset(handler)
        elif kind in {None, "hold"}:
            if kind:
                self._healed.wait(60)
            status, headers, answer = self._forward(handler, body)
            self._answer(handler, status, headers, answer)
        else:
            text = (
                f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{kind}</Code><Message>{_MESSAGE[kind]}</Message>'
            )
            answer = f"{text}<RequestId>4442587FB7D0A2F9</RequestId></Error>".encode()
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(answer)))]
            self._answer(handler, _STATUS[kind], headers, answer)

    @staticmethod
    def _body(handler: BaseHTTPRequestHandler) -> bytes:
        if "chunked" not in handler.headers.get("Transfer-Encoding", ""):
            return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        body = b""
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            body += handler.rfile.read(size)
            handler.rfile.readline()
        handler.rfile.readline()
        return body

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        skipped = {"expect", "transfer-encoding", "connection", "content-length"}
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in skipped}
        headers["Content-Length"] = str(len(body))
        connection = http.client.HTTPConnection("127.0.0.1", self.server_port, timeout=60)
        try:
            connection.request(handler.command, handler.path, body=body, headers=headers)
            response = connection.getresponse()
            answer = response.read()
            kept = [(n, v) for n, v in response.getheaders() if n.lower() not in {"transfer-encoding", "connection"}]
            if not any(name.lower() == "content-length" for name, _ in kept):
                kept.append(("Content-Length", str(len(answer))))
            return response.status, kept, answer
        finally:
            connection.close()

    @staticmethod
    def _answer(handler: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        handler.send_response_only(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    @staticmethod
    def _reset(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        # Closing with a linger time of 0 sends RST instead of FIN.
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.01)
        os.close(handler.connection.detach())
