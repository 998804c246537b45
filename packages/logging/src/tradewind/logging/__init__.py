# SPDX-License-Identifier: Apache-2.0
"""Task logs recorded directly to cloud storage while the task runs, so that a killed task keeps its log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tradewind.logging._version import __version__

if TYPE_CHECKING:
    from tradewind.logging.handler import TradewindTaskHandler
    from tradewind.logging.remote import TradewindRemoteLogIO

__all__ = ["TradewindRemoteLogIO", "TradewindTaskHandler", "__version__"]


def __getattr__(name: str) -> object:
    # Provider discovery imports this package while Airflow's configuration is half loaded.
    if name == "TradewindRemoteLogIO":
        from tradewind.logging.remote import TradewindRemoteLogIO

        return TradewindRemoteLogIO
    if name == "TradewindTaskHandler":
        from tradewind.logging.handler import TradewindTaskHandler

        return TradewindTaskHandler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
