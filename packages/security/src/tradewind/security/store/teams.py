# SPDX-License-Identifier: Apache-2.0
"""Teams: named sets of users that bindings can name."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sqlalchemy import delete as delete_rows
from sqlalchemy import select

from tradewind.security.exceptions import ConflictError, NotFoundError
from tradewind.security.store import models
from tradewind.security.store.checks import identifier, is_identifier
from tradewind.security.store.records import TeamRecord
from tradewind.security.store.transaction import changing, transaction, utc_now

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["TeamRecord", "add_member", "create", "delete", "list_teams", "remove_member"]


def create(name: str) -> TeamRecord:
    """Make a team without members.

    Args:
        name: Its name, up to 250 characters.

    Raises:
        ConflictError: There is a team of that name.
        InvalidValueError: The name can't be used.
        StoreUnavailableError: The database does not answer.
    """
    identifier("team", name)
    with changing() as session:
        if session.get(models.Team, name):
            raise ConflictError(f"team {name!r} exists already")
        now = utc_now()
        session.add(models.Team(name=name, created_at=now))
    return TeamRecord(name, frozenset(), now)


def delete(name: str) -> None:
    """Delete a team with its memberships, and the database's bindings that name it.

    A later team of the same name starts without members and without bindings.

    Args:
        name: Its name.

    Raises:
        NotFoundError: There is none of that name.
        StoreUnavailableError: The database does not answer.
    """
    with changing() as session:
        team = _row(session, name)
        session.execute(
            delete_rows(models.Binding).where(models.Binding.subject_kind == "team", models.Binding.subject == name)
        )
        session.execute(delete_rows(models.TeamMember).where(models.TeamMember.team == name))
        session.delete(team)


def add_member(team: str, user_id: str) -> None:
    """Put a user into a team; nothing changes if they are in it.

    Args:
        team: Name of a team.
        user_id: Id of a user, who may be known to an identity provider only.

    Raises:
        InvalidValueError: The id can't be used.
        NotFoundError: There is no team of that name.
        StoreUnavailableError: The database does not answer.
    """
    identifier("user id", user_id)
    with changing() as session:
        _row(session, team)
        session.merge(models.TeamMember(team=team, user_id=user_id))


def remove_member(team: str, user_id: str) -> None:
    """Take a user out of a team.

    Args:
        team: Name of a team.
        user_id: Id of a member.

    Raises:
        NotFoundError: There is no such team, or the user is not in it.
        StoreUnavailableError: The database does not answer.
    """
    with changing() as session:
        _row(session, team)
        member = session.get(models.TeamMember, (team, user_id)) if is_identifier(user_id) else None
        if member is None:
            raise NotFoundError(f"user {user_id!r:.300} is not in team {team!r}")
        session.delete(member)


def list_teams() -> list[TeamRecord]:
    """Give all teams with their members, by name.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with transaction() as session:
        members: defaultdict[str, set[str]] = defaultdict(set)
        for team, user_id in session.execute(select(models.TeamMember.team, models.TeamMember.user_id)):
            members[team].add(user_id)
        return [
            TeamRecord(row.name, frozenset(members[row.name]), row.created_at)
            for row in session.scalars(select(models.Team).order_by(models.Team.name))
        ]


def _row(session: Session, name: str) -> models.Team:
    row = session.get(models.Team, name) if is_identifier(name) else None
    if row is None:
        raise NotFoundError(f"there is no team {name!r:.300}")
    return row
