# SPDX-License-Identifier: Apache-2.0
"""Passwords of local users: scrypt of the standard library (RFC 7914), and nothing else."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import unicodedata

from tradewind.security.exceptions import InvalidValueError

__all__ = ["generate_password", "hash_password", "verify_password"]

_MIN_CHARACTERS = 12
_MAX_BYTES = 1024
_N, _R, _P = 2**14, 8, 1
_KEY_BYTES = 32
_MAX_MEMORY = 64 * 1024 * 1024
_FIELDS = 6


def hash_password(password: str) -> str:
    """Give what is kept of a password: `scrypt$n$r$p$salt$hash`.

    Args:
        password: At least 12 characters, at most 1024 bytes of UTF-8.

    Raises:
        InvalidValueError: It is too short or too long.
    """
    if len(password) < _MIN_CHARACTERS:
        raise InvalidValueError(f"password: {len(password)} characters; expected at least {_MIN_CHARACTERS}")
    given = _bytes(password)
    if len(given) > _MAX_BYTES:
        raise InvalidValueError(f"password: {len(given)} bytes; expected at most {_MAX_BYTES}")
    salt = secrets.token_bytes(16)
    return _format(salt, _scrypt(given, salt, _N, _R, _P))


def verify_password(password: str, stored: str | None) -> bool:
    """Tell whether a password is the one that was hashed; takes the same time where there is no hash.

    Args:
        password: What was given.
        stored: What `hash_password` gave, or None for somebody who is unknown or has no password.
    """
    given = _bytes(password)
    usable = len(given) <= _MAX_BYTES
    known = _parse(stored)
    n, r, p, salt, expected = known or _NOBODY
    found = _scrypt(given if usable else b"", salt, n, r, p)
    return hmac.compare_digest(found, expected) and usable and known is not None


def generate_password() -> str:
    """Give a random password of 24 characters (144 bits)."""
    return secrets.token_urlsafe(18)


def _bytes(password: str) -> bytes:
    # One password typed on two systems may come composed or decomposed (NIST SP 800-63B, 5.1.1.2).
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")


def _scrypt(password: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=_MAX_MEMORY, dklen=_KEY_BYTES)


def _format(salt: bytes, key: bytes) -> str:
    return f"scrypt${_N}${_R}${_P}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


def _parse(stored: str | None) -> tuple[int, int, int, bytes, bytes] | None:
    fields = (stored or "").split("$")
    if len(fields) != _FIELDS or fields[0] != "scrypt":
        return None
    try:
        n, r, p = (int(field) for field in fields[1:4])
        salt, key = (base64.b64decode(field, validate=True) for field in fields[4:])
    except (ValueError, binascii.Error):
        return None
    # A corrupt or foreign row must not cost more memory than ours, nor compare with an empty key.
    if (n, r, p) != (_N, _R, _P) or len(key) != _KEY_BYTES:
        return None
    return n, r, p, salt, key


_NOBODY = (_N, _R, _P, secrets.token_bytes(16), secrets.token_bytes(_KEY_BYTES))
