# SPDX-License-Identifier: Apache-2.0
"""The Airflow plugin: sends, when a component starts, what an earlier process left on this disk."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from tradewind.logging import listener

__all__ = ["TradewindLoggingPlugin"]


class TradewindLoggingPlugin(AirflowPlugin):
    """Registers the listener that starts the sweeper."""

    name = "tradewind_logging"
    listeners = [listener]  # noqa: RUF012 - declared so by Airflow
