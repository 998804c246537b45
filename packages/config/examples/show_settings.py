# SPDX-License-Identifier: Apache-2.0
"""Log, from inside a task, what Airflow's settings are there and where each comes from."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag(schedule=None, tags=["example", "tradewind-config"], doc_md=__doc__)
def show_settings() -> None:
    """One task that explains the settings that the Task SDK sees."""

    @task
    def explain() -> dict[str, str]:
        """Return `section.key` to `value (source)` for each setting that tradewind tunes."""
        from airflow.sdk.configuration import conf

        from tradewind.config.explain import explain as explanations

        return {row.setting: f"{row.value} ({row.source})" for row in explanations(conf)}

    explain()


show_settings()
