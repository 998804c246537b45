# SPDX-License-Identifier: Apache-2.0
"""The errors of tradewind.config.

TradewindConfigError
├── FactsError          a TRADEWIND_* variable or tradewind.yaml is malformed
└── OverlayError        this Airflow does not offer what the overlay extends
"""

from __future__ import annotations

__all__ = ["FactsError", "OverlayError", "TradewindConfigError"]


class TradewindConfigError(Exception):
    """Base of every error that tradewind.config raises."""


class FactsError(TradewindConfigError):
    """A declared fact is malformed; the message names where it stands, its value and what would be right.

    Args:
        name: The variable, or the file with the key, for example `TRADEWIND_TASK_MEMORY_MB`.
        value: What was found there.
        expected: What would be right.
    """

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(f"{name}={value!r}: expected {expected}")
        self.name = name
        self.value = value
        self.expected = expected


class OverlayError(TradewindConfigError):
    """The installed Airflow's configuration parser is not the one that the overlay knows."""
