# SPDX-License-Identifier: Apache-2.0
"""The errors of tradewind.security.

TradewindSecurityError
├── PolicyError          the policy can't be used; the message names file, line, key and what would be right
├── SettingsError        a setting of [tradewind_security] is malformed
├── CredentialError      a credential is not accepted; the reason is for the audit log, never for the caller
├── ConflictError        something of that name exists already
├── NotFoundError        there is nothing of that name
├── InvalidValueError    an argument of an administrator or of the API can't be used
└── StoreUnavailableError    the database or an identity provider does not answer
"""

from __future__ import annotations

__all__ = [
    "ConflictError",
    "CredentialError",
    "InvalidValueError",
    "NotFoundError",
    "PolicyError",
    "SettingsError",
    "StoreUnavailableError",
    "TradewindSecurityError",
]


class TradewindSecurityError(Exception):
    """Base of every error that tradewind.security raises."""


class PolicyError(TradewindSecurityError):
    """A policy can't be used; the message names file, line, key and what would be right."""


class SettingsError(TradewindSecurityError):
    """A setting can't be used; the message names it, its value and what would be right."""


class CredentialError(TradewindSecurityError):
    """A credential is not accepted.

    Args:
        reason: Why, in one word with underscores such as `expired`; for the audit log, never for the caller.
        subject: Who it claimed to be, as far as that is known.
    """

    def __init__(self, reason: str, subject: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.subject = subject


class ConflictError(TradewindSecurityError):
    """Something of that name exists already."""


class NotFoundError(TradewindSecurityError):
    """There is nothing of that name."""


class InvalidValueError(TradewindSecurityError):
    """An argument can't be used; the message names it, its value and what would be right."""


class StoreUnavailableError(TradewindSecurityError):
    """The database or an identity provider does not answer; nobody is let in by mistake."""
