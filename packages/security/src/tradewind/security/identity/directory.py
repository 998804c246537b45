# SPDX-License-Identifier: Apache-2.0
"""All identity providers of a policy, which share what was read from them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tradewind.security.exceptions import NotFoundError
from tradewind.security.identity.bearer import BearerVerifier
from tradewind.security.identity.discovery import Provider
from tradewind.security.identity.jwks import KeySet
from tradewind.security.identity.oidc import LoginFlow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tradewind.security.policy.schema import Issuer

__all__ = ["Directory"]


class Directory:
    """The providers that a policy trusts. Make a new one for each new policy.

    Args:
        issuers: Entries of the policy.
        previous: The directory of the policy before: entries that did not change keep their keys and the memory of
            what was used.
        now: Seconds since the epoch.
    """

    bearer: BearerVerifier

    def __init__(
        self,
        issuers: Sequence[Issuer],
        previous: Directory | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.issuers = tuple(issuers)
        before = {} if previous is None else previous._keys
        flows = {} if previous is None else previous._logins
        self._keys: dict[str, KeySet] = {}
        self._logins: dict[str, LoginFlow] = {}
        for issuer in self.issuers:
            kept = before.get(issuer.name)
            same = kept is not None and kept.provider.issuer == issuer
            self._keys[issuer.name] = keys = kept if same and kept else KeySet(Provider(issuer))
            if issuer.client_id and not issuer.workload:
                self._logins[issuer.name] = flows[issuer.name] if same else LoginFlow(keys, now)
        unchanged = previous is not None and previous.issuers == self.issuers
        self.bearer = (
            previous.bearer if previous is not None and unchanged else BearerVerifier(issuers, now, self._keys)
        )

    @property
    def logins(self) -> tuple[Issuer, ...]:
        """Issuers that people can log in with, in the policy's order."""
        return tuple(issuer for issuer in self.issuers if issuer.name in self._logins)

    def login(self, name: str) -> LoginFlow:
        """Give the logins of an issuer.

        Args:
            name: Its name.

        Raises:
            NotFoundError: No issuer of that name has logins.
        """
        flow = self._logins.get(name)
        if flow is None:
            raise NotFoundError(f"no identity provider {name!r:.80} has logins")
        return flow
