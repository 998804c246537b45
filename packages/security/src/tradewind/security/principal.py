# SPDX-License-Identifier: Apache-2.0
"""Who asks: the user object that Airflow hands to every authorization question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser

__all__ = ["Kind", "Principal"]

Kind = Literal["user", "service", "workload"]


@dataclass(frozen=True)
class Principal(BaseUser):
    """Somebody who was authenticated. Holds no roles: they are looked up for each generation of the policy.

    Args:
        id: The user's or service's id, for example `alice@acme.example`; what HITL tasks are assigned to.
        kind: A person, a service account, or a CI workload of a trusted issuer.
        name: For display; the id where it is None.
        groups: Groups of the identity provider, each `issuer:group`.
        roles: Names of roles that a workload issuer's `bind` gives at this deployment.
        session: Id of the browser or CLI session, or None.
        token: Id of the API token, or None.
        scopes: Cells that the API token is limited to, or None for all that its owner may do.
        ends_at: End of the session or token, in seconds since the epoch.
        issued_at: When the session token was made, in seconds since the epoch.
        renewing: A new cookie is being made for this session.
    """

    id: str
    kind: Kind = "user"
    name: str | None = None
    groups: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    session: str | None = None
    token: str | None = None
    scopes: frozenset[str] | None = None
    ends_at: float | None = None
    issued_at: float | None = None
    renewing: bool = False

    def get_id(self) -> str:
        """Give the id."""
        return self.id

    def get_name(self) -> str:
        """Give the name for display and for Airflow's audit log."""
        return self.name or self.id
