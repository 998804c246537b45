# SPDX-License-Identifier: Apache-2.0
"""Bindings that are made at run time, beside those of the policy file."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from pydantic import ValidationError
from sqlalchemy import select

from tradewind.security.exceptions import ConflictError, InvalidValueError, NotFoundError
from tradewind.security.policy import schema
from tradewind.security.store import models
from tradewind.security.store.checks import identifier, is_identifier
from tradewind.security.store.records import SELECTORS, BindingRecord, binding_record
from tradewind.security.store.transaction import changing, transaction, utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BindingRecord", "create", "delete", "list_bindings", "parse"]

log = logging.getLogger(__name__)

_LARGEST_SELECTORS = 60_000  # MySQL's TEXT


def parse(values: Mapping[str, object]) -> schema.Binding:
    """Give a binding of the same keys as in the policy file.

    Args:
        values: For example `{"user": "alice", "role": "ws_author", "scope": "workspace/data"}`. Whether there
            is such a role is known to the policy only.

    Raises:
        InvalidValueError: Something in it can't be used.
    """
    try:
        binding = schema.Binding.model_validate(dict(values))
    except ValidationError as error:
        raise InvalidValueError(f"binding: {_explain(error)}") from None
    limited = [name for name in SELECTORS if getattr(binding, name) is not None]
    if limited and binding.scope.startswith("team/"):
        raise InvalidValueError(f"{limited[0]}: scope {binding.scope!r} limits the binding already; give one of both")
    kind, subject = binding.subject
    identifier(kind, subject)
    identifier("role", binding.role)
    identifier("scope", binding.scope)
    return binding


def create(binding: schema.Binding | Mapping[str, object], *, created_by: str) -> BindingRecord:
    """Give a role to somebody.

    Args:
        binding: The binding, or its keys and values as `parse` takes them.
        created_by: Id of who gives it.

    Raises:
        ConflictError: There is such a binding.
        InvalidValueError: Something in it can't be used.
        StoreUnavailableError: The database does not answer.
    """
    checked = parse(binding.model_dump(exclude_none=True) if isinstance(binding, schema.Binding) else binding)
    identifier("created_by", created_by)
    kind, subject = checked.subject
    selectors = checked.model_dump(mode="json", include=set(SELECTORS), exclude_none=True, exclude_defaults=True)
    text = json.dumps(selectors)
    if len(text) > _LARGEST_SELECTORS:
        raise InvalidValueError(f"binding: selectors of {len(text)} bytes; expected at most {_LARGEST_SELECTORS}")
    same_subject = select(models.Binding).where(
        models.Binding.subject_kind == kind, models.Binding.subject == subject, models.Binding.role == checked.role
    )
    with changing() as session:
        for row in session.scalars(same_subject):
            if (record := _readable(row)) and record.binding == checked:
                raise ConflictError(f"binding {record.id} says the same already")
        row = models.Binding(
            subject_kind=kind,
            subject=subject,
            role=checked.role,
            scope=checked.scope,
            selectors=text,
            created_by=created_by,
            created_at=utc_now(),
        )
        session.add(row)
        session.flush()
        return BindingRecord(row.id, checked, created_by, row.created_at)


def delete(binding_id: int) -> None:
    """Take a role away.

    Args:
        binding_id: Id of a binding, also of one that is corrupt.

    Raises:
        NotFoundError: There is none of that id.
        StoreUnavailableError: The database does not answer.
    """
    with changing() as session:
        # The range of the column: a driver refuses larger numbers.
        row = session.get(models.Binding, binding_id) if 0 < binding_id < 2**31 else None
        if row is None:
            raise NotFoundError(f"there is no binding {binding_id}")
        session.delete(row)


def list_bindings(kind: str | None = None, subject: str | None = None) -> list[BindingRecord]:
    """Give the database's bindings, by id; a corrupt one is logged and left out.

    Args:
        kind: Only those of `user`, `group`, `team` or `service`.
        subject: Only those of this user, group, team or service.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    if not all(value is None or is_identifier(value) for value in (kind, subject)):
        return []
    query = select(models.Binding).order_by(models.Binding.id)
    if kind is not None:
        query = query.where(models.Binding.subject_kind == kind)
    if subject is not None:
        query = query.where(models.Binding.subject == subject)
    with transaction() as session:
        return [record for row in session.scalars(query) if (record := _readable(row))]


def _readable(row: models.Binding) -> BindingRecord | None:
    try:
        return binding_record(row)
    except ValueError as error:
        log.warning("Binding %s is corrupt and grants nothing (%s)", row.id, type(error).__name__)
        return None


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"])
        value = problem["input"]
        shown = f" (got {value!r:.100})" if isinstance(value, (str, int, float, list)) else ""
        problems.append(f"{place}: {problem['msg']}{shown}" if place else f"{problem['msg']}{shown}")
    return "; ".join(problems)
