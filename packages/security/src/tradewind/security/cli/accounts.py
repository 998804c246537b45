# SPDX-License-Identifier: Apache-2.0
"""`users` and `teams`."""

from __future__ import annotations

import getpass
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from tradewind.security.cli.deployment import opened
from tradewind.security.cli.output import Result, command
from tradewind.security.exceptions import InvalidValueError

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = [
    "teams_add_member",
    "teams_create",
    "teams_delete",
    "teams_list",
    "teams_remove_member",
    "users_create",
    "users_disable",
    "users_enable",
    "users_list",
    "users_set_password",
]


@command
def users_create(args: Namespace) -> Result:
    """Make a user or service account."""
    from tradewind.security.store import users

    without = args.service or args.no_password
    if without and (args.random or args.password_env):
        raise InvalidValueError("--service and --no-password exclude --random and --password-env")
    password = None if without else _password(args)
    with opened() as deployment:
        made = users.create(
            args.user,
            kind="service" if args.service else "user",
            name=args.name,
            password=password,
            must_change_password=args.must_change and not without,
        )
        deployment.record("user.created", user=made.id, kind=made.kind)
    shown: dict[str, object] = {"id": made.id, "kind": made.kind, "name": made.name}
    return Result({**shown, "password": password} if args.random else shown)


@command
def users_list(args: Namespace) -> Result:
    """List users and service accounts."""
    from tradewind.security.store import users

    return Result([asdict(user) for user in users.list_users()], nothing="there is no user")


@command
def users_set_password(args: Namespace) -> Result:
    """Give a user another password."""
    from tradewind.security.store import users

    # Not after a person has typed a password twice.
    users.get(args.user)
    password = _password(args)
    with opened() as deployment:
        users.set_password(args.user, password, must_change_password=args.must_change)
        deployment.record("user.password_set", user=args.user)
    return Result({"id": args.user, "password": password} if args.random else "")


@command
def users_disable(args: Namespace) -> Result:
    """Switch a user off."""
    from tradewind.security.store import users

    with opened() as deployment:
        users.disable(args.user)
        deployment.record("user.disabled", user=args.user)
    return Result("")


@command
def users_enable(args: Namespace) -> Result:
    """Switch a user on."""
    from tradewind.security.store import users

    with opened() as deployment:
        users.enable(args.user)
        deployment.record("user.enabled", user=args.user)
    return Result("")


@command
def teams_list(args: Namespace) -> Result:
    """List teams."""
    from tradewind.security.store import teams

    found = [{**asdict(team), "members": sorted(team.members)} for team in teams.list_teams()]
    return Result(found, nothing="there is no team")


@command
def teams_create(args: Namespace) -> Result:
    """Make a team."""
    from tradewind.security.store import teams

    with opened() as deployment:
        teams.create(args.team)
        deployment.record("team.created", team=args.team)
    return Result("")


@command
def teams_delete(args: Namespace) -> Result:
    """Delete a team."""
    from tradewind.security.store import teams

    with opened() as deployment:
        teams.delete(args.team)
        deployment.record("team.deleted", team=args.team)
    return Result("")


@command
def teams_add_member(args: Namespace) -> Result:
    """Put a user into a team."""
    from tradewind.security.store import teams

    with opened() as deployment:
        teams.add_member(args.team, args.user)
        deployment.record("team.member_added", team=args.team, user=args.user)
    return Result("")


@command
def teams_remove_member(args: Namespace) -> Result:
    """Take a user out of a team."""
    from tradewind.security.store import teams

    with opened() as deployment:
        teams.remove_member(args.team, args.user)
        deployment.record("team.member_removed", team=args.team, user=args.user)
    return Result("")


def _password(args: Namespace) -> str:
    from tradewind.security.passwords import generate_password

    if args.random and args.password_env:
        raise InvalidValueError("expected one of --random and --password-env")
    if args.random:
        return generate_password()
    if args.password_env:
        given = os.environ.get(args.password_env)
        if not given:
            raise InvalidValueError(f"environment variable {args.password_env} is not set")
        return given
    try:
        typed = getpass.getpass("Password: ")
        again = getpass.getpass("Password again: ")
    except EOFError:
        raise InvalidValueError("no password was typed; --password-env NAME or --random need no terminal") from None
    if typed != again:
        raise InvalidValueError("the passwords that were typed differ")
    return typed
