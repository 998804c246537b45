# SPDX-License-Identifier: Apache-2.0
"""Events of this app in the audit log, with the facts of the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tradewind.security.api.guard import manager_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from tradewind.security.principal import Principal

__all__ = ["address_of", "note"]


def address_of(request: Request) -> str | None:
    """Give where a request came from; behind a proxy only with `--proxy-headers`."""
    return request.client.host if request.client else None


def note(
    request: Request,
    event: str,
    who: Principal | None = None,
    *,
    subject: str | None = None,
    outcome: str = "success",
    reason: str | None = None,
    **details: object,
) -> None:
    """Write an event.

    Args:
        request: The request.
        event: What happened, such as `login` or `binding.created`.
        who: Who did it.
        subject: Who it was said to be, where `who` is not known.
        outcome: `success`, `failure` or `denied`.
        reason: Why, in one word with underscores.
        details: More; never a secret.
    """
    manager = manager_of(request)
    policy = manager.policies.current().file
    more: dict[str, Any] = {"token_id": who.token if who else None, **details}
    manager.audit.record(
        event,
        subject=who.id if who else subject,
        subject_type=who.kind if who else "anonymous",
        outcome=outcome,
        reason=reason,
        method=request.method,
        path=request.url.path,
        request_id=request.headers.get("x-request-id"),
        source_ip=address_of(request),
        user_agent=request.headers.get("user-agent"),
        organization=policy.organization,
        deployment=policy.deployment,
        **{name: value for name, value in more.items() if value is not None},
    )
