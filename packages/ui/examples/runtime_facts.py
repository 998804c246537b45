# SPDX-License-Identifier: Apache-2.0
"""Log which runtime a task runs on.

The footer tells what the api-server runs; this Dag tells the same facts from where a task runs, which
shows at once that a worker still has an older image.
"""

from __future__ import annotations

import logging

from airflow.sdk import dag, task

log = logging.getLogger(__name__)


@dag(schedule=None, catchup=False, tags=["tradewind", "example"])
def runtime_facts() -> None:
    """One task that logs the facts and returns them."""

    @task
    def tell() -> dict[str, str]:
        from tradewind.ui.runtime_info import load

        info = load()
        facts = {
            "product": info.product,
            "version": info.version or info.ui,
            "airflow": info.airflow or "unknown",
            "image_tag": info.image_tag or "none",
        }
        for name, value in facts.items():
            log.info("%s: %s", name, value)
        return facts

    tell()


runtime_facts()
