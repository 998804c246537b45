# SPDX-License-Identifier: Apache-2.0
"""What recording tells Airflow's own metrics: StatsD, Datadog or OpenTelemetry, as `[metrics]` says.

| metric | kind | counts |
|---|---|---|
| `tradewind_logging.puts` | counter | objects written |
| `tradewind_logging.put_bytes` | counter | bytes written, replaced ones included |
| `tradewind_logging.put_failures` | counter | writes that the storage refused |
| `tradewind_logging.left_behind` | counter | sessions whose end the storage did not take in time: for the sweeper |
| `tradewind_logging.swept` | counter, tag `outcome` | sessions and files that a sweeper looked after |
| `tradewind_logging.lag` | timing, milliseconds | upper bound of the age of the oldest byte of a write |
| `tradewind_logging.bytes_at_risk` | gauge, tag `host` | bytes that only this machine has |
| `tradewind_logging.sessions` | gauge, tag `host` | sessions of this machine that are not finished |

No metric carries the id of a Dag or a task. Nothing is imported and nothing happens where `[metrics]` is off.
"""

from __future__ import annotations

import logging
import socket
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["PREFIX", "Meter"]

log = logging.getLogger("tradewind.logging")

PREFIX = "tradewind_logging"

_SWITCHES = ("statsd_on", "statsd_datadog_enabled", "otel_on")
# A supervisor under the LocalExecutor inherits core's, which its executor has set up.
_MODULES = ("airflow._shared.observability.metrics.stats", "airflow.sdk._shared.observability.metrics.stats")


class Meter:
    """Tells Airflow's metrics; never raises, because a task must not notice."""

    def __init__(self) -> None:
        self._enabled: bool | None = None
        self._host = socket.gethostname()

    @property
    def enabled(self) -> bool:
        """Whether `[metrics]` names a receiver."""
        if self._enabled is None:
            from tradewind.logging.remote import airflow_conf

            try:
                conf = airflow_conf()
                self._enabled = any(conf.getboolean("metrics", switch, fallback=False) for switch in _SWITCHES)
            except Exception:  # noqa: BLE001 - a malformed [metrics] is for Airflow to tell
                self._enabled = False
        return self._enabled

    def count(self, name: str, number: int = 1, **tags: str) -> None:
        """Add to a counter.

        Args:
            name: Without the prefix.
            number: How many.
            tags: Names and values.
        """
        self._tell("incr", name, number, tags)

    def took(self, name: str, seconds: float) -> None:
        """Report a time.

        Args:
            name: Without the prefix.
            seconds: The time; reported in milliseconds, as Airflow does.
        """
        self._tell("timing", name, seconds * 1000, {})

    def level(self, name: str, value: float) -> None:
        """Set a gauge of this machine.

        Args:
            name: Without the prefix.
            value: Its value.
        """
        self._tell("gauge", name, value, {"host": self._host})

    def _tell(self, function: str, name: str, value: float, tags: dict[str, str]) -> None:
        if not self.enabled:
            return
        try:
            getattr(_stats(), function)(f"{PREFIX}.{name}", value, tags=tags)
        except Exception as error:  # noqa: BLE001 - a receiver's trouble is not the task's
            self._enabled = False
            log.warning("no metrics of log recording any more in this process: %s", type(error).__name__)


def _stats() -> ModuleType:
    for name in _MODULES:
        module = sys.modules.get(name)
        if module is not None and getattr(module, "_factory", None) is not None:
            return module
    # A Celery worker's supervisor: nobody has set metrics up in it.
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics.stats_utils import get_stats_factory

    initialize: Any = stats.initialize
    initialize(factory=get_stats_factory(), export_legacy_names=False)
    return sys.modules[_MODULES[1]]
