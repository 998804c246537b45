# SPDX-License-Identifier: Apache-2.0
"""What an OpenID Connect provider says about itself (OpenID Connect Discovery 1.0)."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tradewind.security.exceptions import StoreUnavailableError
from tradewind.security.identity._fetch import TIMEOUT_SECONDS, request_json
from tradewind.security.identity._refreshed import Refreshed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tradewind.security.policy.schema import Issuer

__all__ = ["Metadata", "Provider", "metadata_of"]

log = logging.getLogger(__name__)

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Metadata:
    """The parts of a discovery document that are used.

    Args:
        jwks_uri: Where its keys are.
        authorization_endpoint: Where browsers log in.
        token_endpoint: Where a code is exchanged.
        userinfo_endpoint: Where more claims are.
        end_session_endpoint: Where browsers log out.
        device_authorization_endpoint: Where a device's login starts (RFC 8628).
        token_endpoint_auth_methods: How a client may authenticate; empty where it doesn't say.
        names_itself: It sends `iss` with each answer to a browser (RFC 9207).
    """

    jwks_uri: str
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    device_authorization_endpoint: str | None = None
    token_endpoint_auth_methods: tuple[str, ...] = ()
    names_itself: bool = False


class Provider:
    """One provider, whose discovery document is read once an hour.

    Args:
        issuer: Its entry of the policy.
        max_age_seconds: How long a document is used without asking again.
        retry_seconds: Least time between two requests.
        timeout_seconds: Limit of each request.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        issuer: Issuer,
        *,
        max_age_seconds: float = 3600,
        retry_seconds: float = 10,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self.max_age_seconds = max_age_seconds
        self.retry_seconds = retry_seconds
        self.timeout_seconds = timeout_seconds
        self.clock = clock
        self._metadata = Refreshed(
            self._fetch, max_age_seconds=max_age_seconds, retry_seconds=retry_seconds, clock=clock
        )

    async def metadata(self) -> Metadata:
        """Give its metadata; the last good one while it doesn't answer.

        Raises:
            StoreUnavailableError: It never gave a usable document.
        """
        return await self._metadata.get()

    async def answering(self) -> Metadata:
        """Give its metadata if it answers, for people who are about to be sent there.

        Raises:
            StoreUnavailableError: It does not answer, or its document can't be used.
        """
        return await self._metadata.answering()

    async def _fetch(self) -> Metadata:
        url = f"{self.issuer.issuer.rstrip('/')}/.well-known/openid-configuration"
        status, document = await request_json(
            "GET", url, provider=self.issuer.name, what="discovery", timeout_seconds=self.timeout_seconds
        )
        try:
            if status != 200:  # noqa: PLR2004
                raise _unusable(self.issuer, f"there is no discovery document (status {status})")
            return metadata_of(self.issuer, document)
        except StoreUnavailableError as error:
            log.warning("%s", error)
            raise


def metadata_of(issuer: Issuer, document: Mapping[str, object]) -> Metadata:
    """Give what a discovery document says.

    Args:
        issuer: The policy's entry.
        document: The provider's document.

    Raises:
        StoreUnavailableError: It is of another issuer, or leads to where no secret may go.
    """
    named = document.get("issuer")
    if named != issuer.issuer:
        # Section 4.3: they must be identical, the last slash included; else tokens of another pass as its own.
        raise _unusable(issuer, f"it calls itself {named!r:.200}, the policy's `issuer` is {issuer.issuer!r}")
    jwks_uri = _endpoint(issuer, document, "jwks_uri")
    if jwks_uri is None:
        raise _unusable(issuer, "its discovery document has no jwks_uri")
    methods = document.get("token_endpoint_auth_methods_supported")
    return Metadata(
        jwks_uri=jwks_uri,
        authorization_endpoint=_endpoint(issuer, document, "authorization_endpoint"),
        token_endpoint=_endpoint(issuer, document, "token_endpoint"),
        userinfo_endpoint=_endpoint(issuer, document, "userinfo_endpoint"),
        end_session_endpoint=_endpoint(issuer, document, "end_session_endpoint"),
        device_authorization_endpoint=_endpoint(issuer, document, "device_authorization_endpoint"),
        token_endpoint_auth_methods=tuple(map(str, methods)) if isinstance(methods, list) else (),
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _endpoint(issuer: Issuer, document: Mapping[str, object], key: str) -> str | None:
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not _is_safe(value, plain=urlsplit(issuer.issuer).hostname in _LOOPBACK):
        raise _unusable(issuer, f"its {key} is no https URL: {value!r:.200}")
    return value


def _is_safe(url: str, *, plain: bool) -> bool:
    """Whether it is https, or where plain http is allowed at all, http on loopback."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    allowed = parts.scheme == "https" or (plain and parts.scheme == "http" and parts.hostname in _LOOPBACK)
    return allowed and bool(parts.hostname) and parts.username is None and parts.password is None


def _unusable(issuer: Issuer, problem: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"identity provider {issuer.name!r} can't be used: {problem}")
