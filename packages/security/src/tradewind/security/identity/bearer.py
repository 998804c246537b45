# SPDX-License-Identifier: Apache-2.0
"""JWTs of trusted issuers as Bearer tokens."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from tradewind.security.exceptions import CredentialError, StoreUnavailableError
from tradewind.security.identity._verify import MAX_TOKEN_CHARS, audiences, peek, shown, verified_claims
from tradewind.security.identity.claims import principal_of
from tradewind.security.identity.discovery import Provider
from tradewind.security.identity.jwks import KeySet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tradewind.security.policy.schema import Issuer
    from tradewind.security.principal import Principal

__all__ = ["BearerVerifier"]

_CACHE_SIZE = 4096
_CACHE_SECONDS = 60.0
# RFC 9068 names access tokens; most issuers say JWT. A logout token is neither.
_TYPES = frozenset({"jwt", "at+jwt"})


class BearerVerifier:
    """Verifies tokens of the issuers that have an `audience`.

    Args:
        issuers: Entries of the policy.
        now: Seconds since the epoch.
        keys: Keys by issuer's name, to share them with logins; without, own ones.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        now: Callable[[], float] = time.time,
        keys: Mapping[str, KeySet] | None = None,
    ) -> None:
        self._issuers = [issuer for issuer in issuers if issuer.audience]
        self._now = now
        shared = keys or {}
        self._keys = {i.name: shared.get(i.name) or KeySet(Provider(i)) for i in self._issuers}
        self._lock = threading.Lock()
        self._verified: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    def trusts(self, token: str) -> Issuer | None:
        """Give the issuer that a token claims to be of, or None where it isn't a trusted one. Verifies nothing.

        Args:
            token: What came as Bearer.
        """
        try:
            return self._issuer_of(peek(token)[1])
        except CredentialError:
            return None

    async def verify(self, token: str) -> Principal:
        """Give whom a token is about.

        Args:
            token: What came as Bearer.

        Raises:
            CredentialError: It is not accepted; the reason is one of `malformed`, `oversized`, `untrusted_issuer`,
                `alg_not_allowed`, `wrong_type`, `unknown_key`, `bad_signature`, `wrong_issuer`, `wrong_audience`,
                `missing_claim`, `expired`, `not_yet_valid`, `key_server_down`.
        """
        if not isinstance(token, str):
            raise CredentialError("malformed")
        if len(token) > MAX_TOKEN_CHARS:
            raise CredentialError("oversized")
        now = self._now()
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._recall(digest, now)
        if known is not None:
            return known
        claims = peek(token)[1]
        issuer = self._issuer_of(claims)
        if issuer is None or not issuer.audience:
            raise CredentialError("untrusted_issuer", shown(claims.get("sub")))
        try:
            claims = await verified_claims(
                token, keys=self._keys[issuer.name], audience=issuer.audience, now=now, types=_TYPES
            )
        except StoreUnavailableError:
            raise CredentialError("key_server_down", shown(claims.get("sub"))) from None
        principal = principal_of(issuer, claims)
        self._remember(digest, principal, now)
        return principal

    def _issuer_of(self, claims: Mapping[str, object]) -> Issuer | None:
        named = [issuer for issuer in self._issuers if issuer.issuer == claims.get("iss")]
        wanted = audiences(claims)
        return next((issuer for issuer in named if issuer.audience in wanted), named[0] if named else None)

    def _recall(self, digest: bytes, now: float) -> Principal | None:
        with self._lock:
            until, principal = self._verified.get(digest, (0.0, None))
            if principal is None or now >= until:
                self._verified.pop(digest, None)
                return None
            self._verified.move_to_end(digest)
            return principal

    def _remember(self, digest: bytes, principal: Principal, now: float) -> None:
        until = min(principal.ends_at or 0.0, now + _CACHE_SECONDS)
        if until <= now:
            return
        with self._lock:
            self._verified[digest] = (until, principal)
            while len(self._verified) > _CACHE_SIZE:
                self._verified.popitem(last=False)
