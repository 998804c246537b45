# SPDX-License-Identifier: Apache-2.0
"""A task that talks for a while: watch its log appear in the storage before it ends."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag(schedule=None, tags=["example", "tradewind-logging"], doc_md=__doc__)
def chatty_task() -> None:
    """One task with a line every tenth of a second."""

    @task
    def talk(lines: int = 30, pause_seconds: float = 0.1) -> int:
        """Print lines, slowly."""
        import time

        for number in range(lines):
            print(f"line {number}")  # noqa: T201 - what the task is for
            time.sleep(pause_seconds)
        return lines

    talk()


chatty_task()
