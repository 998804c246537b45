# SPDX-License-Identifier: Apache-2.0
"""Users, service accounts and teams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Request, status

from tradewind.security.api import models
from tradewind.security.api.guard import Caller, GuardedRoute, manager_of, needs
from tradewind.security.api.rights import refuse_to_give, stake_of_principal, stake_of_team
from tradewind.security.api.trail import note
from tradewind.security.exceptions import ConflictError
from tradewind.security.principal import Principal

if TYPE_CHECKING:
    from tradewind.security.store.records import TeamRecord

__all__ = ["router"]

router = APIRouter(tags=["Users and teams"], route_class=GuardedRoute)

MEMBERS = "tw.org.members.manage:*"
TEAMS = "tw.team.manage:*"
Name = Annotated[str, Path(min_length=1, max_length=250)]


@router.get("/users")
@needs(MEMBERS)
def list_users() -> models.Users:
    """Give local users and service accounts."""
    from tradewind.security.store import users

    found = [models.User.model_validate(record) for record in users.list_users()]
    return models.Users(users=found, total_entries=len(found))


@router.post("/users", status_code=status.HTTP_201_CREATED)
@needs(MEMBERS)
def create_user(request: Request, caller: Caller, wanted: models.NewUser) -> models.User:
    """Make a local user or a service account."""
    from tradewind.security.store import users

    # Bindings may name the id already, for example somebody of an identity provider.
    _refuse_stronger(request, caller, Principal(wanted.id, kind=wanted.kind))
    record = users.create(
        wanted.id,
        kind=wanted.kind,
        name=wanted.name,
        password=wanted.password,
        must_change_password=wanted.must_change_password and wanted.password is not None,
    )
    note(request, "user.created", caller, user=record.id, kind=record.kind)
    return models.User.model_validate(record)


@router.patch("/users/{user_id}")
@needs(MEMBERS)
def change_user(request: Request, caller: Caller, user_id: Name, wanted: models.UserChange) -> models.User:
    """Switch a user off or on, or set another password."""
    from tradewind.security.store import users

    record = users.get(user_id)
    if record.id == caller.id:
        raise ConflictError("your own account is changed on the account page")
    _refuse_stronger(request, caller, Principal(record.id, kind="service" if record.kind == "service" else "user"))
    if wanted.password is not None:
        users.set_password(record.id, wanted.password, must_change_password=wanted.must_change_password)
        note(request, "user.password_set", caller, user=record.id)
    if wanted.disabled is not None:
        (users.disable if wanted.disabled else users.enable)(record.id)
        note(request, "user.disabled" if wanted.disabled else "user.enabled", caller, user=record.id)
    return models.User.model_validate(users.get(record.id))


@router.get("/teams")
@needs(TEAMS)
def list_teams() -> models.Teams:
    """Give teams with their members."""
    from tradewind.security.store import teams

    found = [_shown(team) for team in teams.list_teams()]
    return models.Teams(teams=found, total_entries=len(found))


@router.post("/teams", status_code=status.HTTP_201_CREATED)
@needs(TEAMS)
def create_team(request: Request, caller: Caller, wanted: models.NewTeam) -> models.Team:
    """Make a team without members."""
    from tradewind.security.store import teams

    team = teams.create(wanted.name)
    note(request, "team.created", caller, team=team.name)
    return _shown(team)


@router.delete("/teams/{name}", status_code=status.HTTP_204_NO_CONTENT)
@needs(TEAMS)
def delete_team(request: Request, caller: Caller, name: Name) -> None:
    """Delete a team, with what it was given at run time."""
    from tradewind.security.store import teams

    _refuse_stronger_team(request, caller, name)
    teams.delete(name)
    note(request, "team.deleted", caller, team=name)


@router.put("/teams/{name}/members/{user}", status_code=status.HTTP_204_NO_CONTENT)
@needs(TEAMS)
def add_member(request: Request, caller: Caller, name: Name, user: Name) -> None:
    """Put a user into a team."""
    from tradewind.security.store import teams

    _refuse_stronger_team(request, caller, name)
    teams.add_member(name, user)
    note(request, "team.member_added", caller, team=name, user=user)


@router.delete("/teams/{name}/members/{user}", status_code=status.HTTP_204_NO_CONTENT)
@needs(TEAMS)
def remove_member(request: Request, caller: Caller, name: Name, user: Name) -> None:
    """Take a user out of a team."""
    from tradewind.security.store import teams

    _refuse_stronger_team(request, caller, name)
    teams.remove_member(name, user)
    note(request, "team.member_removed", caller, team=name, user=user)


def _refuse_stronger(request: Request, caller: Principal, user: Principal) -> None:
    manager = manager_of(request)
    refuse_to_give(manager, caller, stake_of_principal(manager, user), what=f"user {user.id}")


def _refuse_stronger_team(request: Request, caller: Principal, team: str) -> None:
    manager = manager_of(request)
    refuse_to_give(manager, caller, stake_of_team(manager, team), what=f"team {team}")


def _shown(team: TeamRecord) -> models.Team:
    return models.Team(name=team.name, members=sorted(team.members), created_at=team.created_at)
