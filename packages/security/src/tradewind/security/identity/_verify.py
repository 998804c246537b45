# SPDX-License-Identifier: Apache-2.0
"""Signature and standard claims of a JWT (RFC 7519, RFC 8725)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import jwt

from tradewind.security.exceptions import CredentialError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tradewind.security.identity.jwks import KeySet

MAX_TOKEN_CHARS = 16 * 1024
MAX_ID_CHARS = 250

_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_JWS = jwt.PyJWS(options={"verify_signature": True, "enforce_minimum_key_length": True})
_FAR_FUTURE = 1 << 40


def shown(value: object) -> str | None:
    """Give a claim that may be shown, logged and stored as a name; None where it isn't one."""
    usable = isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARS and value.isprintable() and not value.isspace()
    return str(value) if usable else None


def peek(token: str) -> tuple[dict[str, object], dict[str, object]]:
    """Give header and claims of a token that nobody has verified.

    Args:
        token: A JWT in compact form.

    Raises:
        CredentialError: `oversized` or `malformed`.
    """
    if not isinstance(token, str):
        raise CredentialError("malformed")
    if len(token) > MAX_TOKEN_CHARS:
        raise CredentialError("oversized")
    if not _SHAPE.fullmatch(token):
        raise CredentialError("malformed")
    try:
        decoded = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise CredentialError("malformed") from None
    return decoded["header"], decoded["payload"]


async def verified_claims(
    token: str, *, keys: KeySet, audience: str, now: float, types: frozenset[str], subject_required: bool = True
) -> dict[str, object]:
    """Give the claims of a token whose signature, issuer, audience and times are right.

    Args:
        token: A JWT in compact form.
        keys: The issuer's keys.
        audience: What `aud` must contain.
        now: Seconds since the epoch.
        types: What the header's `typ` may be, in lower case; without one it's `jwt`.
        subject_required: A `sub` must be there.

    Raises:
        CredentialError: The token is not accepted.
        StoreUnavailableError: The issuer never gave its keys.
    """
    issuer = keys.provider.issuer
    header, claims = peek(token)
    subject = shown(claims.get("sub"))
    alg, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "jwt")
    if not isinstance(alg, str) or alg not in issuer.algorithms:
        raise CredentialError("alg_not_allowed", subject)
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in types:
        raise CredentialError("wrong_type", subject)
    try:
        key = await keys.key(kid if isinstance(kid, str) else None, alg)
        _JWS.decode_complete(token, key=key, algorithms=[alg])
    except CredentialError as error:
        raise CredentialError(error.reason, subject) from None
    except jwt.InvalidSignatureError:
        raise CredentialError("bad_signature", subject) from None
    except jwt.InvalidKeyError:
        raise CredentialError("unknown_key", subject) from None
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise CredentialError("malformed", subject) from None
    if claims.get("iss") != issuer.issuer:
        raise CredentialError("wrong_issuer", subject)
    if audience not in audiences(claims):
        raise CredentialError("wrong_audience", subject)
    _check_times(claims, now, issuer.leeway, subject)
    if "cnf" in claims:
        # RFC 7800: it is worth nothing without a proof of its key, which a Bearer token doesn't come with.
        raise CredentialError("wrong_type", subject)
    if subject_required and subject is None:
        raise CredentialError("missing_claim")
    return claims


def audiences(claims: Mapping[str, object]) -> tuple[str, ...]:
    """Give whom a token is for."""
    aud = claims.get("aud")
    values = aud if isinstance(aud, list) else [aud]
    return tuple(value for value in values if isinstance(value, str))


def seconds_of(claims: Mapping[str, object], name: str, subject: str | None = None) -> float | None:
    """Give a claim that is a time; None where it isn't there.

    Raises:
        CredentialError: `malformed`: it is no number of seconds.
    """
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _FAR_FUTURE:
        raise CredentialError("malformed", subject)
    return float(value)


def _check_times(claims: Mapping[str, object], now: float, leeway: float, subject: str | None) -> None:
    expires = seconds_of(claims, "exp", subject)
    if expires is None:
        raise CredentialError("missing_claim", subject)
    if now >= expires + leeway:
        raise CredentialError("expired", subject)
    for name in ("nbf", "iat"):
        since = seconds_of(claims, name, subject)
        if since is not None and since > now + leeway:
            raise CredentialError("not_yet_valid", subject)
