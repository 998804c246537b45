# SPDX-License-Identifier: Apache-2.0
"""The keys that an identity provider signs with (RFC 7517)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from tradewind.security.exceptions import CredentialError, StoreUnavailableError
from tradewind.security.identity._fetch import request_json
from tradewind.security.identity._refreshed import Refreshed

if TYPE_CHECKING:
    from tradewind.security.identity.discovery import Provider

__all__ = ["KeySet"]

log = logging.getLogger(__name__)

_MAX_KEYS = 100
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
# Algorithms by key type and curve. Symmetric keys have none, so nothing that is published is ever a secret.
_ALGORITHMS = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}

_Keys = dict[tuple[str | None, str], list[jwt.PyJWK]]


class KeySet:
    """The keys of one provider, read once an hour and when a token names a key that isn't known yet.

    Args:
        provider: Whose.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._keys = Refreshed(
            self._fetch,
            max_age_seconds=provider.max_age_seconds,
            retry_seconds=provider.retry_seconds,
            clock=provider.clock,
        )

    async def key(self, kid: str | None, alg: str) -> jwt.PyJWK:
        """Give the key to verify a signature with.

        Args:
            kid: The key's id as the token says; without one, the only key that fits is meant.
            alg: The signature's algorithm.

        Raises:
            CredentialError: `unknown_key`: no key fits, or without an id several do.
            StoreUnavailableError: The provider never gave its keys.
        """
        # Before the keys' own stamp is set: else one failing discovery would cost two retry periods.
        await self.provider.metadata()
        keys = await self._keys.get()
        found = keys.get((kid, alg), ())
        if not found:
            found = (await self._keys.refetched()).get((kid, alg), ())
        if len(found) != 1:
            raise CredentialError("unknown_key")
        return found[0]

    async def _fetch(self) -> _Keys:
        name = self.provider.issuer.name
        metadata = await self.provider.metadata()
        status, document = await request_json(
            "GET", metadata.jwks_uri, provider=name, what="keys", timeout_seconds=self.provider.timeout_seconds
        )
        entries = document.get("keys")
        if status != 200 or not isinstance(entries, list):  # noqa: PLR2004
            log.warning("Identity provider %s: its keys are no key set (status %d)", name, status)
            raise StoreUnavailableError(f"identity provider {name!r} gives no usable answer (keys)")
        return _usable(entries[:_MAX_KEYS])


def _usable(entries: list[object]) -> _Keys:
    """Keys by id and algorithm; under the id None, all of an algorithm."""
    keys: _Keys = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry:
            continue
        operations, kid = entry.get("key_ops", ["verify"]), entry.get("kid")
        if not isinstance(operations, list) or "verify" not in operations or not isinstance(kid, str | None):
            continue
        for alg in _algorithms(entry):
            try:
                key = jwt.PyJWK(entry, algorithm=alg)
            except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, AttributeError, LookupError):
                break
            keys.setdefault((None, alg), []).append(key)
            if kid is not None:
                keys.setdefault((kid, alg), []).append(key)
    return keys


def _algorithms(entry: dict[str, object]) -> tuple[str, ...]:
    kind, curve, alg = entry.get("kty"), entry.get("crv"), entry.get("alg")
    if not isinstance(kind, str) or not isinstance(curve, str | None):
        return ()
    possible = _ALGORITHMS.get((kind, curve), ())
    return possible if alg is None else tuple(name for name in possible if name == alg)
