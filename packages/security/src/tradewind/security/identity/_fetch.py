# SPDX-License-Identifier: Apache-2.0
"""Requests to identity providers: bounded in time and size, never redirected, with one kind of error."""

from __future__ import annotations

import asyncio
import json
import logging
from functools import cache
from typing import TYPE_CHECKING

import httpx

from tradewind.security.exceptions import StoreUnavailableError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

log = logging.getLogger(__name__)

MAX_BYTES = 512 * 1024
TIMEOUT_SECONDS = 5.0

# Without an encoding, the limit on the bytes read is the limit on the document too.
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "tradewind-security"}


async def request_json(
    method: str,
    url: str,
    *,
    provider: str,
    what: str,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    auth: httpx.BasicAuth | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> tuple[int, dict[str, object]]:
    """Give the status and the JSON object of an answer.

    Args:
        method: HTTP method.
        url: Where to.
        provider: The issuer's name, for messages.
        what: What is asked for, for messages.
        form: Fields of the form to post.
        headers: More headers.
        auth: The client's credentials.
        timeout_seconds: Limit of the whole exchange.

    Raises:
        StoreUnavailableError: No answer in time, one of status 500 or above, a redirect, or no JSON object.
    """
    problem: str
    try:
        status, body = await asyncio.wait_for(_exchange(method, url, form, headers, auth), timeout_seconds)
        if status < 300 or 400 <= status < 500:  # noqa: PLR2004
            document = json.loads(body)
            if isinstance(document, dict):
                return status, document
            problem = f"status {status}, but no JSON object"
        else:
            problem = f"status {status}"
    except asyncio.TimeoutError:
        problem = f"no complete answer within {timeout_seconds:g} s"
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        problem = f"{type(error).__name__}: {error}"
    except (ValueError, RecursionError):
        problem = f"status {status}, but no JSON"
    log.warning("Identity provider %s: %s: %s", provider, what, problem)
    raise StoreUnavailableError(f"identity provider {provider!r} gives no usable answer ({what})")


@cache
def _tls() -> ssl.SSLContext:
    """Loading the certificates takes tens of milliseconds, too long for each request and for an event loop."""
    return httpx.create_ssl_context()


async def _exchange(
    method: str,
    url: str,
    form: Mapping[str, str] | None,
    headers: Mapping[str, str] | None,
    auth: httpx.BasicAuth | None,
) -> tuple[int, bytes]:
    tls = await asyncio.to_thread(_tls)
    async with (
        httpx.AsyncClient(headers=_HEADERS, verify=tls, timeout=None, follow_redirects=False) as client,  # noqa: S113 - the caller's limit is of the whole
        client.stream(method, url, data=form, headers=headers, auth=auth) as response,
    ):
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_BYTES:
                raise httpx.RemoteProtocolError(f"the answer is larger than {MAX_BYTES} bytes")
        return response.status_code, bytes(body)
