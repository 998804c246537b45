# SPDX-License-Identifier: Apache-2.0
"""What was refused while a request was answered, for the audit log."""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["Refusals", "collect", "refuse"]

MOST = 8

Refusals = list[tuple[str, str | None]]

# A list and not a value: dependencies run in threads with a copy of the context.
_refusals: ContextVar[Refusals | None] = ContextVar("tradewind_refusals", default=None)


def collect() -> Refusals:
    """Begin to collect what is refused in this context; returns the list that fills."""
    found: Refusals = []
    _refusals.set(found)
    return found


def refuse(cell: str, resource: str | None) -> None:
    """Note a refusal.

    Args:
        cell: What was asked for.
        resource: Id of what it was asked for, or None.
    """
    found = _refusals.get()
    if found is not None and len(found) < MOST:
        found.append((cell, resource))
