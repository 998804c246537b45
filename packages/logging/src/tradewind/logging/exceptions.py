# SPDX-License-Identifier: Apache-2.0
"""The errors of tradewind.logging.

TradewindLoggingError
├── LogSettingsError    a setting is malformed, or names something that is not installed
└── StorageError        the storage refused or did not answer
"""

from __future__ import annotations

__all__ = ["LogSettingsError", "StorageError", "TradewindLoggingError"]


class TradewindLoggingError(Exception):
    """Base of every error that tradewind.logging raises."""


class LogSettingsError(TradewindLoggingError):
    """A setting can't be used; the message names it, its value and what would be right."""


class StorageError(TradewindLoggingError):
    """The storage refused or did not answer; the message names the object and holds no credentials."""
