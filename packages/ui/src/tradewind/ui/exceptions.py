# SPDX-License-Identifier: Apache-2.0
"""What this package raises.

- TradewindUIError
  - RuntimeInfoError (also a ValueError): a fact about the runtime has the wrong form
"""

from __future__ import annotations

__all__ = ["RuntimeInfoError", "TradewindUIError"]


class TradewindUIError(Exception):
    """Base of everything that this package raises itself."""


class RuntimeInfoError(TradewindUIError, ValueError):
    """A fact about the runtime has the wrong form; the message names it, the value and the right form."""
