# SPDX-License-Identifier: Apache-2.0
"""A task whose supervisor is killed with SIGKILL while it runs, and whose log survives.

The first attempt prints 200 lines and then kills the process that watches it, as the kernel does when
memory runs out or a node is lost: nobody is left to upload a log. Open the log of attempt 1: all lines are
there, because they were recorded while they were written. The second attempt succeeds.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

LINES = 200


@dag(schedule=None, tags=["demo", "logging"], doc_md=__doc__)
def killed_task() -> None:
    """One task that loses its supervisor at the first attempt."""

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def lose_the_supervisor(ti: Any = None) -> int:
        """Print, then kill the supervisor."""
        import os
        import signal
        import time

        for number in range(LINES):
            print(f"line {number}")  # noqa: T201 - what the task is for
            time.sleep(0.005)
        if ti.try_number == 1:
            time.sleep(2)
            os.kill(os.getppid(), signal.SIGKILL)
        return LINES

    lose_the_supervisor()


killed_task()
