# SPDX-License-Identifier: Apache-2.0
"""Logins of people in a browser or at a terminal, and their end.

Authorization code flow of OpenID Connect Core 1.0 section 3.1, with PKCE (RFC 7636, S256) and the check of
`iss` (RFC 9207); device flow (RFC 8628); RP-Initiated Logout 1.0; Back-Channel Logout 1.0.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import urlencode, urlsplit

from tradewind.security.exceptions import CredentialError, StoreUnavailableError
from tradewind.security.identity._fetch import request_json
from tradewind.security.identity._once import Once
from tradewind.security.identity._token_endpoint import client_id_of, client_request, reason_of
from tradewind.security.identity._verify import audiences, seconds_of, shown, verified_claims
from tradewind.security.identity.claims import principal_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tradewind.security.identity.discovery import Metadata
    from tradewind.security.identity.jwks import KeySet
    from tradewind.security.principal import Principal

__all__ = ["DeviceCode", "Login", "LoginFlow", "Transaction"]

_TRANSACTION_SECONDS = 300
_LOGOUT_SECONDS = 120
_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_MAX_CODE_CHARS = 4096


class Transaction(TypedDict):
    """What a browser carries, signed by the caller, from the start of a login to its end.

    Args:
        issuer: Name of the issuer.
        state: Sent along and given back.
        nonce: Comes back in the ID token.
        verifier: PKCE's secret.
        redirect_uri: Where the provider sends the browser.
        next: Where the browser wanted to go; the caller checks it.
        at: When it started, in seconds since the epoch.
    """

    issuer: str
    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    next: str
    at: float


@dataclass(frozen=True)
class Login:
    """A login that succeeded.

    Args:
        principal: Who it is; without an end, which is the session's matter.
        issuer: Name of the issuer.
        subject: The user's `sub` there; with `session`, what a back-channel logout names.
        session: The provider's `sid`, or None.
        next: Where the browser wanted to go.
        id_token: The ID token, for a logout at the provider; never to be stored or logged.
    """

    principal: Principal
    issuer: str
    subject: str
    session: str | None
    next: str
    id_token: str = field(repr=False)


@dataclass(frozen=True)
class DeviceCode:
    """A device's login that waits for a person.

    Args:
        user_code: What the person types.
        verification_uri: Where.
        complete_uri: The same with the code in it, or None.
        expires_in: How long it waits, in seconds.
        interval: Least time between two polls, in seconds.
        device_code: What polls send.
    """

    user_code: str
    verification_uri: str
    complete_uri: str | None
    expires_in: float
    interval: float
    device_code: str = field(repr=False)


class LoginFlow:
    """Logins with one provider.

    Args:
        keys: Its keys.
        now: Seconds since the epoch.

    Raises:
        SettingsError: The issuer has no `client_id`, or is for workloads.
    """

    def __init__(self, keys: KeySet, now: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._provider = keys.provider
        self._issuer = keys.provider.issuer
        self._client_id = client_id_of(self._provider)
        self._now = now
        self._used = Once()
        self._logouts = Once()

    async def begin(self, redirect_uri: str, next_url: str) -> tuple[str, Transaction]:
        """Start a login: where to send the browser, and what it has to bring back.

        Args:
            redirect_uri: Our callback, exactly as the provider has it registered.
            next_url: Where the browser wants to go.

        Raises:
            StoreUnavailableError: The provider does not answer.
        """
        endpoint = (await self._provider.answering()).authorization_endpoint
        if endpoint is None:
            raise StoreUnavailableError(f"identity provider {self._issuer.name!r} has no endpoint for: login")
        transaction = Transaction(
            issuer=self._issuer.name,
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            redirect_uri=redirect_uri,
            next=next_url,
            at=self._now(),
        )
        challenge = base64.urlsafe_b64encode(hashlib.sha256(transaction["verifier"].encode()).digest())
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self._issuer.scopes),
            "state": transaction["state"],
            "nonce": transaction["nonce"],
            "code_challenge": challenge.rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return _with_query(endpoint, query), transaction

    async def finish(self, transaction: Mapping[str, object], parameters: Mapping[str, str]) -> Login:
        """End a login with what the browser brings to the callback.

        Args:
            transaction: What `begin` gave, its signature checked by the caller.
            parameters: The query of the callback.

        Raises:
            CredentialError: It is not accepted; the reason is one of BearerVerifier's, of RFC 6749's error codes, or
                `bad_transaction`, `transaction_expired`, `transaction_replayed`, `wrong_state`, `wrong_nonce`,
                `wrong_subject`.
            StoreUnavailableError: The provider does not answer.
            SettingsError: The client's secret is not in the environment.
        """
        now = self._now()
        started = self._checked(transaction, parameters, now)
        metadata = await self._provider.metadata()
        named = parameters.get("iss")
        if (named is not None or metadata.names_itself) and named != self._issuer.issuer:
            raise CredentialError("wrong_issuer")
        if "error" in parameters:
            raise CredentialError(reason_of(parameters["error"]))
        code = parameters.get("code", "")
        if not 0 < len(code) <= _MAX_CODE_CHARS:
            raise CredentialError("invalid_request")
        if not self._used.first(started["state"]):
            raise CredentialError("transaction_replayed")
        answer = await client_request(
            self._provider,
            metadata.token_endpoint,
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": started["redirect_uri"],
                "code_verifier": started["verifier"],
            },
            "code",
        )
        return await self._login(metadata, answer, nonce=started["nonce"], next_url=started["next"])

    async def logout_url(self, post_logout_redirect_uri: str, id_token: str | None = None) -> str | None:
        """Give where to send a browser to end the provider's session too; None where it has no such place.

        Args:
            post_logout_redirect_uri: Where the provider sends the browser then, as it has it registered.
            id_token: The ID token of the login, so that the provider need not ask.

        Raises:
            StoreUnavailableError: The provider does not answer.
        """
        endpoint = (await self._provider.metadata()).end_session_endpoint
        if endpoint is None:
            return None
        query = {"client_id": self._client_id, "post_logout_redirect_uri": post_logout_redirect_uri}
        if id_token is not None:
            query["id_token_hint"] = id_token
        return _with_query(endpoint, query)

    async def verify_logout_token(self, token: str) -> tuple[str | None, str | None]:
        """Give `sub` and `sid` of the sessions that the provider ends (Back-Channel Logout 1.0, section 2.6).

        Args:
            token: The `logout_token` that it posted.

        Raises:
            CredentialError: It is not accepted; besides BearerVerifier's reasons `no_logout_event`,
                `nonce_in_logout_token`, `replayed`.
            StoreUnavailableError: The provider never gave its keys.
        """
        now = self._now()
        claims = await verified_claims(
            token,
            keys=self._keys,
            audience=self._client_id,
            now=now,
            types=frozenset({"jwt", "logout+jwt"}),
            subject_required=False,
        )
        subject, session, name = shown(claims.get("sub")), shown(claims.get("sid")), shown(claims.get("jti"))
        events = claims.get("events")
        if not isinstance(events, dict) or not isinstance(events.get(_LOGOUT_EVENT), dict):
            raise CredentialError("no_logout_event", subject)
        if "nonce" in claims:
            raise CredentialError("nonce_in_logout_token", subject)
        issued = seconds_of(claims, "iat", subject)
        if issued is None or name is None or (subject is None and session is None):
            raise CredentialError("missing_claim", subject)
        if now > issued + _LOGOUT_SECONDS + self._issuer.leeway:
            raise CredentialError("expired", subject)
        if not self._logouts.first(name):
            raise CredentialError("replayed", subject)
        return subject, session

    async def device_begin(self) -> DeviceCode:
        """Start a login of a terminal.

        Raises:
            CredentialError: The provider refuses.
            StoreUnavailableError: The provider does not answer, or knows no device flow.
            SettingsError: The client's secret is not in the environment.
        """
        endpoint = (await self._provider.metadata()).device_authorization_endpoint
        form = {"scope": " ".join(self._issuer.scopes)}
        if self._issuer.client_secret_env is not None:
            form["client_id"] = self._client_id
        answer = await client_request(self._provider, endpoint, form, "device login")
        code, user_code = answer.get("device_code"), shown(answer.get("user_code"))
        uri, complete = shown(answer.get("verification_uri")), answer.get("verification_uri_complete")
        if not isinstance(code, str) or user_code is None or uri is None or not uri.startswith(("https:", "http:")):
            raise CredentialError("provider_error")
        return DeviceCode(
            user_code=user_code,
            verification_uri=uri,
            complete_uri=shown(complete),
            expires_in=seconds_of(answer, "expires_in") or _TRANSACTION_SECONDS,
            interval=seconds_of(answer, "interval") or 5.0,
            device_code=code,
        )

    async def device_poll(self, device_code: str) -> Login | None:
        """Ask once whether the person has agreed; None while not.

        Args:
            device_code: What `device_begin` gave.

        Raises:
            CredentialError: The login is refused or too old; `slow_down`: ask 5 s less often.
            StoreUnavailableError: The provider does not answer.
            SettingsError: The client's secret is not in the environment.
        """
        metadata = await self._provider.metadata()
        form = {"grant_type": _DEVICE_GRANT, "device_code": device_code}
        try:
            answer = await client_request(self._provider, metadata.token_endpoint, form, "device login")
        except CredentialError as error:
            if error.reason == "authorization_pending":
                return None
            raise
        return await self._login(metadata, answer, nonce=None, next_url="")

    def _checked(self, transaction: Mapping[str, object], parameters: Mapping[str, str], now: float) -> Transaction:
        texts = {key: value for key, value in transaction.items() if isinstance(value, str)}
        at = transaction.get("at")
        try:
            started = Transaction(
                issuer=texts["issuer"],
                state=texts["state"],
                nonce=texts["nonce"],
                verifier=texts["verifier"],
                redirect_uri=texts["redirect_uri"],
                next=texts["next"],
                at=float(at) if isinstance(at, int | float) else float("nan"),
            )
        except KeyError:
            raise CredentialError("bad_transaction") from None
        if started["issuer"] != self._issuer.name or not math.isfinite(started["at"]):
            raise CredentialError("bad_transaction")
        if not -self._issuer.leeway <= now - started["at"] <= _TRANSACTION_SECONDS:
            raise CredentialError("transaction_expired")
        if not _same(started["state"], parameters.get("state")):
            raise CredentialError("wrong_state")
        return started

    async def _login(
        self, metadata: Metadata, answer: Mapping[str, object], *, nonce: str | None, next_url: str
    ) -> Login:
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise CredentialError("missing_claim")
        claims = await verified_claims(
            token, keys=self._keys, audience=self._client_id, now=self._now(), types=frozenset({"jwt"})
        )
        subject = str(claims["sub"])
        party = claims.get("azp")
        if (party is not None or len(audiences(claims)) > 1) and party != self._client_id:
            raise CredentialError("wrong_audience", subject)
        if seconds_of(claims, "iat", subject) is None:
            raise CredentialError("missing_claim", subject)
        if nonce is not None and not _same(nonce, claims.get("nonce")):
            raise CredentialError("wrong_nonce", subject)
        claims = await self._completed(metadata, claims, answer.get("access_token"))
        return Login(
            principal=replace(principal_of(self._issuer, claims), ends_at=None),
            issuer=self._issuer.name,
            subject=subject,
            session=shown(claims.get("sid")),
            next=next_url,
            id_token=token,
        )

    async def _completed(
        self, metadata: Metadata, claims: dict[str, object], access_token: object
    ) -> dict[str, object]:
        """Claims of the user endpoint too, where the ID token lacks the id or the groups."""
        wanted = (self._issuer.user_claim or "email", self._issuer.groups_claim)
        if all(name in claims for name in wanted) or metadata.userinfo_endpoint is None:
            return claims
        subject = str(claims["sub"])
        if not isinstance(access_token, str) or not access_token.isascii() or not access_token.isprintable():
            raise CredentialError("provider_error", subject)
        status, more = await request_json(
            "GET",
            metadata.userinfo_endpoint,
            provider=self._issuer.name,
            what="user",
            headers={"Authorization": f"Bearer {access_token}"},
            timeout_seconds=self._provider.timeout_seconds,
        )
        if status != 200:  # noqa: PLR2004
            raise CredentialError("provider_error", subject)
        if more.get("sub") != subject:
            raise CredentialError("wrong_subject", subject)
        if "email" not in claims:
            # Whether an address is verified is said by who gives the address.
            claims = {name: value for name, value in claims.items() if name != "email_verified"}
        return {**more, **claims}


def _same(expected: str, given: object) -> bool:
    return isinstance(given, str) and given.isascii() and expected.isascii() and hmac.compare_digest(expected, given)


def _with_query(url: str, query: Mapping[str, str]) -> str:
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query)}"
