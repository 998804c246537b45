# SPDX-License-Identifier: Apache-2.0
"""Who one is, what one may do and why, and what was refused."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request

from tradewind.security.api import models
from tradewind.security.api.guard import Caller, GuardedRoute, demand, manager_of, needs
from tradewind.security.api.trail import note
from tradewind.security.authorization import bindings_of, teams_of
from tradewind.security.exceptions import InvalidValueError, NotFoundError
from tradewind.security.policy.cells import BITS, names_of
from tradewind.security.policy.compiler import NO_FACTS, grants_of
from tradewind.security.principal import Principal

if TYPE_CHECKING:
    from tradewind.security.policy.compiler import Grant
    from tradewind.security.policy.explain import Kind

__all__ = ["holdings", "router"]

router = APIRouter(tags=["Insight"], route_class=GuardedRoute)

_Name = Annotated[str | None, Query(min_length=1, max_length=250)]


@router.get("/whoami")
def whoami(request: Request, caller: Caller) -> models.Who:
    """Give who asks."""
    manager = manager_of(request)
    return models.Who(
        id=caller.id,
        kind=caller.kind,
        name=caller.get_name(),
        groups=sorted(caller.groups),
        teams=sorted(teams_of(caller, manager.policies.current(), manager.directory.snapshot())),
        roles=holdings(request, caller),
        scopes=None if caller.scopes is None else sorted(caller.scopes),
        session=caller.session,
        token=caller.token,
        ends_at=None if caller.ends_at is None else datetime.fromtimestamp(caller.ends_at, timezone.utc),
    )


@router.get("/roles")
@needs("tw.policy.read:*")
def list_roles(request: Request) -> models.Roles:
    """Give all roles with their cells."""
    policy = manager_of(request).policies.current()
    found = [
        models.Role(name=name, scope=role.scope, description=role.description, cells=names_of(policy.masks[name]))
        for name, role in sorted(policy.roles.items())
    ]
    return models.Roles(roles=found, total_entries=len(found))


@router.get("/explain")
def explain_decision(
    request: Request,
    caller: Caller,
    cell: Annotated[str, Query(max_length=100)],
    user: _Name = None,
    dag: _Name = None,
    connection: _Name = None,
    variable: _Name = None,
    pool: _Name = None,
) -> models.Explanation:
    """Tell whether somebody may do something, and which entries say so; oneself without `user`."""
    if user is not None and user != caller.id:
        demand(request, caller, "tw.policy.read:*")
        who = _somebody(user)
    else:
        who = caller
    if cell not in BITS:
        raise InvalidValueError(f"cell {cell!r}: expected <resource>:<METHOD>, for example dag.run:POST")
    named: tuple[tuple[Kind, str | None], ...] = (
        ("dag", dag),
        ("connection", connection),
        ("variable", variable),
        ("pool", pool),
    )
    chosen = [(kind, name) for kind, name in named if name is not None]
    if len(chosen) > 1:
        raise InvalidValueError("expected at most one of dag, connection, variable, pool")
    kind, name = chosen[0] if chosen else (None, None)
    return _explained(request, who, cell, kind, name)


@router.get("/audit")
@needs("tw.audit.read:*")
def read_audit(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    event: _Name = None,
    subject: _Name = None,
    outcome: _Name = None,
) -> models.AuditEvents:
    """Give the last events of the audit log, newest first."""
    from tradewind.security.audit import tail

    # What has just happened is in memory for some seconds.
    manager_of(request).audit.flush()
    found = tail(limit, event=event, subject=subject, outcome=outcome)
    return models.AuditEvents(events=found, total_entries=len(found))


@router.post("/policy/reload")
@needs("tw.policy.reload:*")
def reload_policy(request: Request, caller: Caller) -> models.Reload:
    """Look at the policy's file now instead of some seconds later; in this process."""
    policies = manager_of(request).policies
    changed = policies.refresh()
    note(request, "policy.reloaded", caller, outcome="failure" if policies.problem else "success", changed=changed)
    return models.Reload(changed=changed, problem=policies.problem)


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request) -> dict[str, Any]:
    """Give the description of this app."""
    return request.app.openapi()  # type: ignore[no-any-return]  # Starlette types the app as Any


def holdings(request: Request, who: Principal) -> list[models.Holding]:
    """Give the roles that somebody has here.

    Args:
        request: The request.
        who: Who.
    """
    manager = manager_of(request)
    policy, snapshot = manager.policies.current(), manager.directory.snapshot()
    grants = grants_of(who, policy.file, policy.masks, bindings_of(policy, snapshot), teams_of(who, policy, snapshot))
    return [
        models.Holding(role=grant.role, subject=":".join(grant.subject), limited=_is_limited(grant)) for grant in grants
    ]


def _is_limited(grant: Grant) -> bool:
    return grant.team is not None or grant.dags is not None or bool(grant.resources)


def _somebody(user: str) -> Principal:
    from tradewind.security.store import sessions, users

    try:
        kind = users.get(user).kind
    except NotFoundError:
        kind = "user"
    if kind == "service":
        return Principal(user, kind="service")
    newest = next(iter(sessions.list_sessions(user)), None)
    return Principal(user, groups=newest.groups if newest else frozenset())


def _explained(request: Request, who: Principal, cell: str, kind: Kind | None, name: str | None) -> models.Explanation:
    from tradewind.security.policy.explain import explain

    manager = manager_of(request)
    policy, snapshot = manager.policies.current(), manager.directory.snapshot()
    found = explain(
        who,
        policy,
        bindings_of(policy, snapshot),
        teams_of(who, policy, snapshot),
        cell,
        kind=kind,
        name=name,
        facts=manager.dags.of(name) if kind == "dag" and name else NO_FACTS,
    )
    reasons = [
        models.Reason(
            source=reason.source,
            subject=reason.subject,
            role=reason.role,
            effect=reason.effect,
            detail=reason.detail,
        )
        for reason in found.because
    ]
    return models.Explanation(user=who.id, cell=cell, allowed=found.allowed, because=reasons)
