# SPDX-License-Identifier: Apache-2.0
"""Sweeps when a component starts that runs supervisors or triggers: scheduler, triggerer, Celery worker."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

from airflow.listeners import hookimpl

__all__ = ["on_starting", "sweep_aside", "sweep_when_celery_is_ready"]

log = logging.getLogger("tradewind.logging")

_JOBS = {"SchedulerJob", "TriggererJob"}


@hookimpl
def on_starting(component: object) -> None:
    """Sweep when one of Airflow's jobs starts.

    Args:
        component: Airflow's job that starts.
    """
    if getattr(component, "job_type", None) in _JOBS:
        sweep_aside()


def sweep_when_celery_is_ready() -> None:
    """Sweep when this process, `airflow celery worker`, has reached its broker; a worker is none of Airflow's jobs."""
    from celery.signals import worker_ready

    worker_ready.connect(_worker_ready, weak=False)


def _worker_ready(**_: object) -> None:
    sweep_aside()


def sweep_aside() -> None:
    """Sweep in a process of its own: this one may hold journals, and it is about to fork."""
    try:
        from airflow.logging_config import get_remote_task_log

        from tradewind.logging.remote import TradewindRemoteLogIO

        remote = get_remote_task_log()
        if not isinstance(remote, TradewindRemoteLogIO) or not remote.settings.sweep_on_start:
            return
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "tradewind-logs", "sweep", "--output", "json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except Exception:
        # A component must start whatever happens in here.
        log.warning("the sweeper for logs of earlier processes was not started", exc_info=True)
        return
    # Nobody else would wait for it, and an unwaited child stays as a zombie.
    threading.Thread(target=process.wait, name="tradewind-log-sweep", daemon=True).start()
    log.info("sweeping %s for logs that an earlier process left", remote.settings.local_base)
