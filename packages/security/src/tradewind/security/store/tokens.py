# SPDX-License-Identifier: Apache-2.0
"""API tokens: `twr_<id>_<secret>_<crc>`, usable as they are in `Authorization: Bearer`.

The id is public and is what the database, logs and people know a token by. Of the secret (256 bits) only
the SHA-256 is kept. The checksum lets scanners of leaked secrets, and us, tell a token from noise.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
import zlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from tradewind.security.exceptions import (
    ConflictError,
    CredentialError,
    InvalidValueError,
    NotFoundError,
    PolicyError,
)
from tradewind.security.policy.cells import expand
from tradewind.security.store import models, usage
from tradewind.security.store.checks import identifier, is_identifier
from tradewind.security.store.records import TokenRecord, token_record
from tradewind.security.store.transaction import changing, transaction, utc_now

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy.orm import Session

    from tradewind.security.store.directory import Directory

__all__ = ["Parsed", "TokenRecord", "create", "list_tokens", "parse", "revoke", "rotate", "update_groups", "verify"]

log = logging.getLogger(__name__)

PREFIX = "twr_"
_FORMAT = re.compile(r"twr_([0-9a-f]{16})_([A-Za-z0-9_-]{43})_([0-9a-f]{8})", re.ASCII)
_LONGEST_TEXT = 200
_CRC_LENGTH = 9
_SHORTEST_SECONDS = 60
_LONGEST_SECONDS = 366 * 86400
_LONGEST_OVERLAP_SECONDS = 7 * 86400
_LARGEST_TEXT = 60_000  # MySQL's TEXT


@dataclass(frozen=True)
class Parsed:
    """The parts of a token.

    Args:
        id: What it is known by.
        secret: What proves it.
    """

    id: str
    secret: str = field(repr=False)


def parse(text: str) -> Parsed:
    """Give the parts of a token; asks nobody.

    Args:
        text: What was given as a token.

    Raises:
        CredentialError: It is no token of ours (`malformed`).
    """
    found = _FORMAT.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    if found is None or not hmac.compare_digest(found[3], _crc(text[:-_CRC_LENGTH])):
        raise CredentialError("malformed")
    return Parsed(found[1], found[2])


def create(
    owner: str,
    name: str,
    scopes: Collection[str] | None = None,
    *,
    expires_in: int,
    groups: Collection[str] = (),
    now: datetime | None = None,
) -> tuple[TokenRecord, str]:
    """Make a token.

    Args:
        owner: Id of the user or service that it acts for.
        name: For people.
        scopes: Cells or patterns that it is limited to; None for all that its owner may do.
        expires_in: Seconds from now until it is no longer accepted: a minute to 366 days.
        groups: Groups of the owner's identity provider, each `issuer:group`: what is bound to them counts for the
            token too, until it expires.
        now: The time.

    Returns:
        The record, and the token itself, which can't be had again.

    Raises:
        InvalidValueError: An argument can't be used.
        StoreUnavailableError: The database does not answer.
    """
    identifier("owner", owner)
    identifier("name", name)
    if isinstance(expires_in, bool) or not _SHORTEST_SECONDS <= expires_in <= _LONGEST_SECONDS:
        raise InvalidValueError(
            f"expires_in {expires_in!r}: expected {_SHORTEST_SECONDS} to {_LONGEST_SECONDS} seconds"
        )
    stored_scopes = None if scopes is None else _checked(scopes)
    stored_groups = _stored_groups(groups)
    moment = now or utc_now()
    # No new generation: nobody can have asked for a token that did not exist.
    with transaction() as session:
        known = session.get(models.User, owner)
        return _add(
            session,
            owner=owner,
            owner_kind=known.kind if known else "user",
            groups=stored_groups,
            name=name,
            scopes=stored_scopes,
            created_at=moment,
            expires_at=moment + timedelta(seconds=expires_in),
        )


def verify(text: str, directory: Directory, now: datetime | None = None) -> TokenRecord:
    """Check a token, and note that it was used.

    Args:
        text: What was given as a token.
        directory: Where tokens and disabled users are known from.
        now: The time.

    Raises:
        CredentialError: Not accepted: malformed, unknown, wrong_secret, revoked, expired or disabled.
        StoreUnavailableError: The database does not answer.
    """
    moment = now or utc_now()
    parsed = parse(text)
    record = directory.token(parsed.id)
    same = hmac.compare_digest(_hash(parsed.secret), record.secret_hash if record else _NOBODY)
    if record is None:
        raise CredentialError("unknown", subject=f"token:{parsed.id}")
    if not same:
        raise CredentialError("wrong_secret", subject=record.owner)
    if record.revoked_at is not None:
        raise CredentialError("revoked", subject=record.owner)
    if moment >= record.expires_at:
        raise CredentialError("expired", subject=record.owner)
    if record.owner in directory.snapshot().disabled:
        raise CredentialError("disabled", subject=record.owner)
    usage.token_used(record.id, moment)
    return record


def rotate(token_id: str, overlap: int = 0, now: datetime | None = None) -> tuple[TokenRecord, str]:
    """Replace a token by one of the same owner, name, scopes and lifetime.

    Args:
        token_id: Id of a token that is still accepted.
        overlap: Seconds for which the old one is accepted too, if it does not expire before: up to seven days.
        now: The time.

    Returns:
        The new record, and the new token itself, which can't be had again.

    Raises:
        ConflictError: It was rotated or revoked, or it has expired.
        InvalidValueError: The overlap can't be used.
        NotFoundError: There is none of that id.
        StoreUnavailableError: The database does not answer.
    """
    if isinstance(overlap, bool) or not 0 <= overlap <= _LONGEST_OVERLAP_SECONDS:
        raise InvalidValueError(f"overlap {overlap!r}: expected 0 to {_LONGEST_OVERLAP_SECONDS} seconds")
    moment = now or utc_now()
    with changing() as session:
        old = _row(session, token_id)
        if old.revoked_at is not None or old.expires_at <= moment:
            raise ConflictError(f"token {token_id} has expired or was revoked; create another one")
        if session.scalar(select(models.ApiToken.id).where(models.ApiToken.rotated_from == token_id)):
            raise ConflictError(f"token {token_id} was rotated already")
        lifetime = old.expires_at - old.created_at
        old.expires_at = min(old.expires_at, moment + timedelta(seconds=overlap))
        return _add(
            session,
            owner=old.owner,
            owner_kind=old.owner_kind,
            groups=old.groups,
            name=old.name,
            scopes=old.scopes,
            created_at=moment,
            expires_at=moment + lifetime,
            rotated_from=old.id,
        )


def revoke(token_id: str) -> None:
    """End a token; nothing changes if it was revoked before.

    Args:
        token_id: Its id.

    Raises:
        NotFoundError: There is none of that id.
        StoreUnavailableError: The database does not answer.
    """
    with changing() as session:
        row = _row(session, token_id)
        if row.revoked_at is None:
            row.revoked_at = utc_now()


def update_groups(owner: str, groups: Collection[str]) -> None:
    """Give a user's tokens the groups that a new login brought, so that they lose what the user has lost.

    Args:
        owner: Id of the user.
        groups: Groups of the identity provider, each `issuer:group`.

    Raises:
        InvalidValueError: There are too many groups.
        StoreUnavailableError: The database does not answer.
    """
    stored = _stored_groups(groups)
    outdated = (
        models.ApiToken.owner == owner,
        models.ApiToken.revoked_at.is_(None),
        models.ApiToken.groups != stored,
    )
    with transaction() as session:
        if session.scalar(select(models.ApiToken.id).where(*outdated).limit(1)) is None:
            return
    with changing() as session:
        session.execute(update(models.ApiToken).where(*outdated).values(groups=stored))


def list_tokens(owner: str | None = None) -> list[TokenRecord]:
    """Give tokens, also expired and revoked ones, newest first; a corrupt one is logged and left out.

    Args:
        owner: Only theirs.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    if owner is not None and not is_identifier(owner):
        return []
    query = select(models.ApiToken).order_by(models.ApiToken.created_at.desc(), models.ApiToken.id)
    if owner is not None:
        query = query.where(models.ApiToken.owner == owner)
    with transaction() as session:
        return [record for row in session.scalars(query) if (record := _readable(row))]


def _add(session: Session, **columns: Any) -> tuple[TokenRecord, str]:
    token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    row = models.ApiToken(id=token_id, secret_hash=_hash(secret), **columns)
    session.add(row)
    body = f"{PREFIX}{token_id}_{secret}"
    return token_record(row), f"{body}_{_crc(body)}"


def _readable(row: models.ApiToken) -> TokenRecord | None:
    try:
        return token_record(row)
    except ValueError as error:
        log.warning("API token %s is corrupt and is refused (%s)", row.id, type(error).__name__)
        return None


def _row(session: Session, token_id: str) -> models.ApiToken:
    row = session.get(models.ApiToken, token_id) if re.fullmatch(r"[0-9a-f]{16}", token_id) else None
    if row is None:
        raise NotFoundError(f"there is no token {token_id!r:.100}")
    return row


def _checked(scopes: Collection[str]) -> str:
    if isinstance(scopes, str) or not scopes:
        raise InvalidValueError(f"scopes {scopes!r:.300}: expected a list of cells, or none for all of the owner's")
    for scope in scopes:
        try:
            expand(scope)
        except PolicyError as error:
            raise InvalidValueError(f"scopes: {error}") from None
    text = json.dumps(sorted(set(scopes)))
    if len(text) > _LARGEST_TEXT:
        raise InvalidValueError(f"scopes of {len(text)} bytes; expected at most {_LARGEST_TEXT}")
    return text


def _stored_groups(groups: Collection[str]) -> str:
    stored = json.dumps(sorted(set(groups)))
    if len(stored) > _LARGEST_TEXT:
        raise InvalidValueError(f"groups of {len(stored)} bytes; expected at most {_LARGEST_TEXT}")
    return stored


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _crc(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


_NOBODY = _hash(secrets.token_urlsafe(32))
