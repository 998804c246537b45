# SPDX-License-Identifier: Apache-2.0
"""Logins that go on, and their end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request, status

from tradewind.security.api import models
from tradewind.security.api.guard import Caller, GuardedRoute, demand
from tradewind.security.api.trail import note
from tradewind.security.exceptions import NotFoundError

if TYPE_CHECKING:
    from tradewind.security.principal import Principal

__all__ = ["end", "own_sessions", "router"]

router = APIRouter(tags=["Sessions"], route_class=GuardedRoute)

MEMBERS = "tw.org.members.manage:*"
SessionId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


@router.get("/sessions")
def list_sessions(caller: Caller) -> models.Sessions:
    """Give one's own logins."""
    found = own_sessions(caller)
    return models.Sessions(sessions=found, total_entries=len(found))


@router.delete("/sessions", status_code=status.HTTP_204_NO_CONTENT)
def end_sessions_of(
    request: Request, caller: Caller, user: Annotated[str, Query(min_length=1, max_length=250)]
) -> None:
    """End all logins of a user."""
    from tradewind.security.store import sessions

    if user == caller.id:
        _refuse_limited(caller)
    else:
        demand(request, caller, MEMBERS)
    ended = sessions.revoke_user(user)
    note(request, "session.ended", caller, of=user, sessions=ended)


@router.delete("/sessions/{session_id}", status_code=status.HTTP_204_NO_CONTENT)
def end_session(request: Request, caller: Caller, session_id: SessionId) -> None:
    """End one of one's own logins."""
    end(request, caller, session_id)


def own_sessions(caller: Principal) -> list[models.Session]:
    """Give somebody's logins.

    Args:
        caller: Whose.

    Raises:
        HTTPException: 403 for a token that is limited to other things.
        StoreUnavailableError: The database does not answer.
    """
    from tradewind.security.store import sessions

    _refuse_limited(caller)
    found = [models.Session.model_validate(record) for record in sessions.list_sessions(caller.id)]
    for session in found:
        session.current = session.id == caller.session
    return found


def end(request: Request, caller: Principal, session_id: str) -> None:
    """End one of somebody's logins.

    Args:
        request: The request.
        caller: Whose.
        session_id: Its id.

    Raises:
        NotFoundError: The caller has no such login.
        StoreUnavailableError: The database does not answer.
    """
    from tradewind.security.store import sessions

    if session_id not in {session.id for session in own_sessions(caller)}:
        raise NotFoundError(f"there is no session {session_id}")
    sessions.revoke(session_id)
    note(request, "session.ended", caller, of=caller.id, session_id=session_id)


def _refuse_limited(caller: Principal) -> None:
    if caller.scopes is not None or caller.kind != "user":
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Forbidden")
