# SPDX-License-Identifier: Apache-2.0
"""`whoami`, `explain`, `can`, `matrix` and `roles`."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from tradewind.security.authorization import bindings_of, teams_of
from tradewind.security.cli.deployment import opened
from tradewind.security.cli.output import Result, command
from tradewind.security.exceptions import InvalidValueError, NotFoundError
from tradewind.security.policy.cells import CELLS, names_of
from tradewind.security.policy.compiler import NO_FACTS, grants_of
from tradewind.security.policy.explain import KINDS, Explanation, Reason, kind_of
from tradewind.security.policy.explain import explain as explain_policy
from tradewind.security.principal import Principal

if TYPE_CHECKING:
    from argparse import Namespace

    from tradewind.security.policy.explain import Kind
    from tradewind.security.policy.loader import Policy

__all__ = ["can", "explain", "matrix", "roles_list", "roles_show", "whoami"]


@command
def whoami(args: Namespace) -> Result:
    """Show whom a token is of."""
    import asyncio

    from tradewind.security.auth_manager import TradewindAuthManager

    token = os.environ.get(args.token_env)
    if not token:
        raise InvalidValueError(
            f"environment variable {args.token_env} is not set; --token-env names the one that holds a token"
        )
    manager = TradewindAuthManager()  # type: ignore[no-untyped-call] # the base class has no annotations
    try:
        principal = asyncio.run(manager.authenticator.principal(token))
        policy, snapshot = manager.policies.current(), manager.directory.snapshot()
    finally:
        manager.directory.close()
    teams = teams_of(principal, policy, snapshot)
    grants = grants_of(principal, policy.file, policy.masks, bindings_of(policy, snapshot), teams)
    ends = principal.ends_at
    return Result(
        {
            "id": principal.id,
            "kind": principal.kind,
            "name": principal.get_name(),
            "groups": sorted(principal.groups),
            "teams": sorted(teams),
            "roles": [f"{grant.role} ({grant.source})" for grant in grants],
            "token": principal.token,
            "scopes": None if principal.scopes is None else sorted(principal.scopes),
            "ends_at": None if ends is None else datetime.fromtimestamp(ends, timezone.utc),
        }
    )


@command
def explain(args: Namespace) -> Result:
    """Show an answer with its reasons."""
    answer = _answer(args)
    verdict = "may" if answer.allowed else "may not"
    kind, name = _named(args)
    what = f"{args.cell} on {kind} {name}" if name else args.cell
    return Result(
        {
            "allowed": answer.allowed,
            "user": args.user,
            "cell": args.cell,
            "kind": kind,
            "name": name,
            "because": [asdict(reason) for reason in answer.because],
        },
        rows=[asdict(reason) for reason in answer.because],
        headline=f"{args.user} {verdict} {what}",
        code=0,
    )


@command
def can(args: Namespace) -> Result:
    """Answer with yes or no."""
    allowed = _answer(args).allowed
    return Result("yes" if allowed else "no", code=0 if allowed else 1)


def _answer(args: Namespace) -> Explanation:
    kind, name = _named(args)
    with opened() as deployment:
        policy, snapshot = deployment.policy, deployment.directory.snapshot()
        principal = _principal(args)
        teams = teams_of(principal, policy, snapshot)
        team, facts = _team(kind, name), NO_FACTS
        if kind == "dag" and name:
            from tradewind.security.dag_index import DagIndex

            facts = DagIndex(deployment.settings.reload_seconds).of(name)
        answer = explain_policy(
            principal,
            policy,
            bindings_of(policy, snapshot),
            teams,
            args.cell,
            kind=kind,
            name=name,
            team=team,
            facts=facts,
        )
        if principal.id in snapshot.disabled:
            subject = f"{principal.kind}:{principal.id}"
            disabled = Reason("the database", subject, "", "denies", "is disabled and may do nothing at all")
            return Explanation(False, (disabled, *answer.because))
        return answer


def _principal(args: Namespace) -> Principal:
    from tradewind.security.store import users

    try:
        kind = users.get(args.user).kind
    except NotFoundError:
        kind = "user"
    if kind == "service":
        return Principal(args.user, kind="service")
    return Principal(args.user, groups=frozenset(args.group))


def _named(args: Namespace) -> tuple[Kind | None, str | None]:
    given = [(kind, value) for kind in KINDS if (value := getattr(args, kind)) is not None]
    if len(given) > 1:
        raise InvalidValueError(f"expected one of {', '.join(f'--{kind}' for kind, _ in given)}")
    return given[0] if given else (kind_of(args.cell), None)


def _team(kind: Kind | None, name: str | None) -> str | None:
    """The team of a resource, as Airflow's routes look it up."""
    if name is None or kind is None:
        return None
    from airflow.models import Connection, DagModel, Pool, Variable
    from airflow.utils.session import create_session

    models: dict[str, Any] = {
        "dag": DagModel,
        "connection": Connection,  # noqa: AIR311 # the row of the database, not what a task is given
        "variable": Variable,  # noqa: AIR311 # likewise
        "pool": Pool,
    }
    if kind not in models:
        return None
    with create_session(scoped=False) as session:
        found = models[kind].get_team_name(name, session=session)
    return None if found is None else str(found)


@command
def matrix(args: Namespace) -> Result:
    """Show the cells of roles."""
    policy = _policy()
    chosen = args.role or sorted(policy.masks)
    held = {role: set(_cells(policy, role)) for role in chosen}
    rows = [{"cell": cell, **{role: "x" if cell in held[role] else "" for role in chosen}} for cell in CELLS]
    if args.output == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, ["cell", *chosen], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return Result(text.getvalue())
    return Result(
        [{"cell": cell, "roles": [role for role in chosen if cell in held[role]]} for cell in CELLS], rows=rows
    )


@command
def roles_list(args: Namespace) -> Result:
    """List the roles."""
    policy = _policy()
    return Result(
        [
            {
                "role": name,
                "scope": role.scope,
                "extends": list(role.extends),
                "cells": len(_cells(policy, name)),
                "source": policy.place("roles", name) if name in policy.file.roles else "shipped",
                "description": role.description,
            }
            for name, role in sorted(policy.roles.items())
        ]
    )


@command
def roles_show(args: Namespace) -> Result:
    """Show one role."""
    with opened() as deployment:
        policy = deployment.policy
        cells = _cells(policy, args.role)
        bindings = bindings_of(policy, deployment.directory.snapshot())
    role = policy.roles[args.role]
    return Result(
        {
            "role": args.role,
            "scope": role.scope,
            "description": role.description,
            "extends": list(role.extends),
            "cells": cells,
            "bound_to": [
                f"{':'.join(binding.subject)} at {binding.scope} ({source})"
                for source, binding in bindings
                if binding.role == args.role
            ],
        }
    )


def _policy() -> Policy:
    with opened() as deployment:
        return deployment.policy


def _cells(policy: Policy, role: str) -> list[str]:
    if role not in policy.masks:
        raise NotFoundError(f"there is no role {role!r}; known: {', '.join(sorted(policy.masks))}")
    return names_of(policy.masks[role])
