# SPDX-License-Identifier: Apache-2.0
"""From the claims of a verified token to a principal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tradewind.security.exceptions import CredentialError
from tradewind.security.identity._verify import seconds_of, shown
from tradewind.security.principal import Principal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from tradewind.security.policy.schema import Issuer

__all__ = ["could_be_chosen", "principal_of", "teams_of"]


def principal_of(issuer: Issuer, claims: Mapping[str, object]) -> Principal:
    """Give the principal whom claims describe.

    Args:
        issuer: Who made them.
        claims: Claims of a verified token.

    Raises:
        CredentialError: `missing_claim`: no usable user id.
    """
    subject = shown(claims.get("sub"))
    ends_at = seconds_of(claims, "exp", subject)
    if issuer.workload:
        if subject is None:
            raise CredentialError("missing_claim")
        roles = frozenset(entry.role for entry in issuer.bind if _matches(claims.get(entry.claim), entry.equals))
        return Principal(id=f"{issuer.name}:{subject}", kind="workload", roles=roles, ends_at=ends_at)
    user = _user_id(issuer, claims)
    if user is None:
        raise CredentialError("missing_claim", subject)
    return Principal(id=user, name=shown(claims.get("name")), groups=_groups(issuer, claims), ends_at=ends_at)


def could_be_chosen(issuer: Issuer, user_id: str) -> bool:
    """Tell whether the provider's user may have chosen this id: a name that is no verified address.

    Args:
        issuer: The issuer.
        user_id: The id.
    """
    return "@" not in user_id and issuer.user_claim is None


def teams_of(issuer: Issuer, groups: Collection[str]) -> frozenset[str]:
    """Give the teams that groups of an issuer make somebody a member of.

    Args:
        issuer: Whose `teams` are meant.
        groups: Groups as in `Principal.groups`, each `issuer:group`; those of other issuers don't count.
    """
    return frozenset(team for group, team in issuer.teams.items() if f"{issuer.name}:{group}" in groups)


def _user_id(issuer: Issuer, claims: Mapping[str, object]) -> str | None:
    unverified = claims.get("email_verified") in (False, "false")
    if issuer.user_claim is not None:
        return None if issuer.user_claim == "email" and unverified else shown(claims.get(issuer.user_claim))
    email, name = shown(claims.get("email")), shown(claims.get("preferred_username"))
    if email and not unverified:
        return email
    # A user who may choose the name could choose the address that wasn't verified.
    if name and not (unverified and "@" in name):
        return name
    return shown(claims.get("sub"))


def _groups(issuer: Issuer, claims: Mapping[str, object]) -> frozenset[str]:
    value = claims.get(issuer.groups_claim)
    names = map(shown, value if isinstance(value, list) else [value])
    return frozenset(f"{issuer.name}:{name}" for name in names if name)


def _matches(value: object, expected: str) -> bool:
    values = value if isinstance(value, list) else [value]
    return any((str(v).lower() if isinstance(v, bool) else v) == expected for v in values if isinstance(v, str | bool))
