# SPDX-License-Identifier: Apache-2.0
"""This deployment as the API server sees it, without the auth manager, whose import takes most of a second."""

from __future__ import annotations

import getpass
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tradewind.security.policy.loader import PolicyLoader
from tradewind.security.settings import SecuritySettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tradewind.security.audit import AuditLog
    from tradewind.security.policy.loader import Policy
    from tradewind.security.store.directory import Directory

__all__ = ["Deployment", "opened", "operator"]


class Deployment:
    """Policy, directory and audit log, each opened when it is asked for."""

    @cached_property
    def settings(self) -> SecuritySettings:
        """The settings."""
        return SecuritySettings.from_config()

    @cached_property
    def policy(self) -> Policy:
        """The policy as it is now."""
        return PolicyLoader(self.settings.policy_file).current()

    @cached_property
    def directory(self) -> Directory:
        """The database's bindings and teams."""
        from tradewind.security.store.directory import Directory

        return Directory(self.settings.poll_seconds)

    @cached_property
    def audit(self) -> AuditLog:
        """Where changes are written."""
        from tradewind.security.audit import AuditLog

        return AuditLog(self.settings.audit)

    def record(self, event: str, **details: object) -> None:
        """Write a change into the audit log.

        Args:
            event: What was done, for example `team.created`.
            details: More; never a secret.
        """
        given: dict[str, Any] = {name: value for name, value in details.items() if value is not None}
        self.audit.record(
            event,
            subject=operator(),
            subject_type="operator",
            outcome="success",
            organization=self.policy.file.organization,
            deployment=self.policy.file.deployment,
            **given,
        )

    def close(self) -> None:
        """Write what is in the audit log, and end the threads."""
        for name in ("audit", "directory"):
            if name in vars(self):
                getattr(self, name).close()


@contextmanager
def opened() -> Iterator[Deployment]:
    """Give the deployment, and close it at the end."""
    deployment = Deployment()
    try:
        yield deployment
    finally:
        deployment.close()


def operator() -> str:
    """Give who runs this command: the account of the operating system."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError, ImportError):
        return "cli"
