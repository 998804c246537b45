# SPDX-License-Identifier: Apache-2.0
"""Who has which role."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, status

from tradewind.security.api import models
from tradewind.security.api.guard import Caller, GuardedRoute, manager_of, needs
from tradewind.security.api.rights import refuse_to_give, stake_of_binding
from tradewind.security.api.trail import note
from tradewind.security.exceptions import InvalidValueError
from tradewind.security.policy import schema
from tradewind.security.policy.loader import Policy, check_binding

__all__ = ["router"]

router = APIRouter(tags=["Bindings"], route_class=GuardedRoute)

_LARGEST_ID = 2**31 - 1


@router.get("/bindings")
@needs("tw.policy.read:*")
def list_bindings(request: Request) -> models.Bindings:
    """Give the bindings of the policy file, each with its place, and those of the database."""
    from tradewind.security.store import bindings

    policy = manager_of(request).policies.current()
    found = [_shown(None, place, binding) for place, binding in policy.bindings]
    found += [_shown(record.id, _place(record.id), record.binding) for record in bindings.list_bindings()]
    return models.Bindings(bindings=found, total_entries=len(found))


@router.post("/bindings", status_code=status.HTTP_201_CREATED)
@needs("tw.role.assign:*")
def create_binding(request: Request, caller: Caller, wanted: schema.Binding) -> models.Binding:
    """Give a role."""
    from tradewind.security.store import bindings

    manager = manager_of(request)
    policy = manager.policies.current()
    _check(wanted, policy)
    refuse_to_give(manager, caller, stake_of_binding(manager, wanted), team=_team(wanted), what=f"role {wanted.role}")
    record = bindings.create(wanted, created_by=caller.id)
    note(request, "binding.created", caller, binding=record.id, says=_said(wanted))
    return _shown(record.id, _place(record.id), record.binding)


@router.delete("/bindings/{binding_id}", status_code=status.HTTP_204_NO_CONTENT)
@needs("tw.role.assign:*")
def delete_binding(request: Request, caller: Caller, binding_id: Annotated[int, Path(ge=1, le=_LARGEST_ID)]) -> None:
    """Take a role away that one could give."""
    from tradewind.security.store import bindings

    manager = manager_of(request)
    record = next((record for record in bindings.list_bindings() if record.id == binding_id), None)
    if record is not None:
        stake = stake_of_binding(manager, record.binding)
        refuse_to_give(manager, caller, stake, team=_team(record.binding), what=f"binding {binding_id}")
    # One that is corrupt grants nothing, so anybody who may assign roles may clear it away.
    bindings.delete(binding_id)
    note(request, "binding.deleted", caller, binding=binding_id, says=_said(record.binding) if record else None)


def _check(binding: schema.Binding, policy: Policy) -> None:
    for key, message in check_binding(binding, policy.roles):
        raise InvalidValueError(f"{key}: {message}")
    if not schema.applies_here(binding.scope, policy.file):
        here = ", ".join(f"{kind}/{getattr(policy.file, kind)}" for kind in ("organization", "workspace", "deployment"))
        raise InvalidValueError(f"scope: {binding.scope!r} is somewhere else; expected one of {here}")
    names = [issuer.name for issuer in policy.file.issuers]
    if binding.group is not None and binding.group.partition(":")[0] not in names:
        raise InvalidValueError(
            f"group: {binding.group!r}: expected <issuer>:<group> with one of {', '.join(names) or 'no issuer'}"
        )


def _team(binding: schema.Binding) -> str | None:
    kind, _, name = binding.scope.partition("/")
    return name if kind == "team" else None


def _place(binding_id: int) -> str:
    return f"binding {binding_id} of the database"


def _said(binding: schema.Binding) -> dict[str, object]:
    return binding.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


def _shown(binding_id: int | None, place: str, binding: schema.Binding) -> models.Binding:
    return models.Binding(id=binding_id, place=place, **binding.model_dump())
