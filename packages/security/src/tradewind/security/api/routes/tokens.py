# SPDX-License-Identifier: Apache-2.0
"""API tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, HTTPException, Path, Request, status

from tradewind.security.api import models
from tradewind.security.api.guard import Caller, GuardedRoute, demand, holds, manager_of, needs
from tradewind.security.api.rights import refuse_to_give, stake_of_principal, stake_of_scopes
from tradewind.security.api.trail import note
from tradewind.security.exceptions import InvalidValueError, NotFoundError, PolicyError
from tradewind.security.policy.cells import BITS, mask_of
from tradewind.security.principal import Principal

if TYPE_CHECKING:
    from collections.abc import Collection

    from tradewind.security.store.records import TokenRecord

__all__ = ["mint", "revoke", "router"]

router = APIRouter(tags=["Tokens"], route_class=GuardedRoute)

SELF = "tw.token.self.manage:*"
OTHERS = "tw.token.deployment.manage:*"
TokenId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]


@router.get("/tokens")
@needs(SELF)
def list_tokens(request: Request, caller: Caller, owner: str | None = None) -> models.Tokens:
    """Give one's own API tokens, or with `owner` those of somebody else."""
    from tradewind.security.store import tokens

    if owner is None or owner == caller.id:
        found = [token for token in tokens.list_tokens(caller.id) if _is_of(token, caller)]
    else:
        demand(request, caller, OTHERS)
        found = tokens.list_tokens(owner)
    return models.Tokens(tokens=[_shown(token) for token in found], total_entries=len(found))


@router.post("/tokens", status_code=status.HTTP_201_CREATED)
@needs(SELF)
def create_token(request: Request, caller: Caller, wanted: models.NewToken) -> models.MintedToken:
    """Make an API token; this answer is the only one that holds it."""
    return _minted(*mint(request, caller, wanted))


@router.post("/tokens/{token_id}/rotate", status_code=status.HTTP_201_CREATED)
@needs(SELF)
def rotate_token(
    request: Request, caller: Caller, token_id: TokenId, wanted: models.Rotation | None = None
) -> models.MintedToken:
    """Replace a token by one of the same rights and lifetime."""
    from tradewind.security.store import tokens

    manager = manager_of(request)
    old = _visible(request, caller, token_id)
    if old.id != caller.token:
        _check_parent(caller, old.scopes)
    if not _is_of(old, caller) or not old.groups <= caller.groups:
        # A local password for somebody of an identity provider does not give what their groups give.
        owner = Principal(old.owner, kind=old.owner_kind, groups=old.groups)
        stake = stake_of_principal(manager, owner) if old.scopes is None else stake_of_scopes(old.scopes)
        refuse_to_give(manager, caller, stake, what=f"token {old.id}")
    record, text = tokens.rotate(token_id, overlap=wanted.overlap if wanted else 0)
    note(request, "token.rotated", caller, old=old.id, new=record.id, owner=record.owner)
    return _minted(record, text)


@router.delete("/tokens/{token_id}", status_code=status.HTTP_204_NO_CONTENT)
@needs(SELF)
def delete_token(request: Request, caller: Caller, token_id: TokenId) -> None:
    """End a token."""
    revoke(request, caller, token_id)


def mint(request: Request, caller: Principal, wanted: models.NewToken) -> tuple[TokenRecord, str]:
    """Make an API token that can do no more than who makes it.

    Args:
        request: The request.
        caller: Who makes it.
        wanted: What is to be made.

    Returns:
        The record, and the token.

    Raises:
        HTTPException: 403.
        InvalidValueError: Something in it can't be used.
        StoreUnavailableError: The database does not answer.
    """
    from tradewind.security.store import tokens

    manager = manager_of(request)
    scopes: Collection[str] | None = wanted.scopes
    if scopes is None and caller.scopes is not None:
        scopes = sorted(caller.scopes)
    try:
        stake = stake_of_scopes(scopes)
    except PolicyError as error:
        raise InvalidValueError(f"scopes: {error}") from None
    _check_parent(caller, scopes)
    owner = wanted.owner or caller.id
    if owner == caller.id:
        _check_kind(caller)
        groups = caller.groups
    else:
        demand(request, caller, OTHERS)
        known = _known(owner)
        groups = frozenset()
        if scopes is None:
            stake = stake_of_principal(manager, known)
        refuse_to_give(manager, caller, stake, what=f"token of {owner}")
    record, text = tokens.create(owner, wanted.name, scopes, expires_in=wanted.expires_in, groups=groups)
    note(
        request,
        "token.created",
        caller,
        created=record.id,
        owner=owner,
        scopes=scopes,
        expires_at=record.expires_at.isoformat(),
    )
    return record, text


def revoke(request: Request, caller: Principal, token_id: str) -> None:
    """End a token.

    Args:
        request: The request.
        caller: Who ends it.
        token_id: Its id.

    Raises:
        NotFoundError: There is none, or none that the caller may know of.
        StoreUnavailableError: The database does not answer.
    """
    from tradewind.security.store import tokens

    record = _visible(request, caller, token_id)
    tokens.revoke(record.id)
    note(request, "token.revoked", caller, revoked=record.id, owner=record.owner)


def _check_parent(caller: Principal, scopes: Collection[str] | None) -> None:
    """Refuse a token that makes others unless it is for that, and a wider one than itself in any case."""
    if caller.token is None:
        return
    own = mask_of(caller.scopes) if caller.scopes is not None else 0
    if not own & BITS[SELF] or stake_of_scopes(scopes) & ~own:
        raise HTTPException(
            status.HTTP_403_FORBIDDEN,
            f"A token makes others only with the scope {SELF}, and none with more than its own",
        )


def _check_kind(caller: Principal) -> None:
    """Refuse who only has the name of an account of another kind."""
    from tradewind.security.store import users

    try:
        kind = users.get(caller.id).kind
    except NotFoundError:
        kind = "user"
    if caller.kind != kind:
        raise HTTPException(status.HTTP_403_FORBIDDEN, "No token can be made for this account")


def _known(owner: str) -> Principal:
    from tradewind.security.store import users

    try:
        found = users.get(owner)
    except NotFoundError:
        raise InvalidValueError(f"owner {owner!r}: there is no such user or service account") from None
    return Principal(found.id, kind="service" if found.kind == "service" else "user")


def _visible(request: Request, caller: Principal, token_id: str) -> TokenRecord:
    manager = manager_of(request)
    found = manager.directory.token(token_id)
    if found is None or not (_is_of(found, caller) or holds(manager, caller, OTHERS)):
        raise NotFoundError(f"there is no token {token_id}")
    return found


def _is_of(token: TokenRecord, caller: Principal) -> bool:
    return token.owner == caller.id and token.owner_kind == caller.kind


def _shown(token: TokenRecord) -> models.Token:
    return models.Token(
        id=token.id,
        name=token.name,
        owner=token.owner,
        scopes=None if token.scopes is None else sorted(token.scopes),
        created_at=token.created_at,
        expires_at=token.expires_at,
        last_used_at=token.last_used_at,
        rotated_from=token.rotated_from,
        revoked_at=token.revoked_at,
    )


def _minted(record: TokenRecord, text: str) -> models.MintedToken:
    return models.MintedToken(**_shown(record).model_dump(), token=text)
