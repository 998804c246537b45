# SPDX-License-Identifier: Apache-2.0
"""What happens when a component starts that runs supervisors or triggers: scheduler, triggerer, Celery worker.

It sweeps, and it imports the storage's libraries before it forks the supervisors that need them.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from tradewind.logging.remote import TradewindRemoteLogIO

__all__ = ["on_starting", "prepare_celery_worker", "sweep_aside"]

log = logging.getLogger("tradewind.logging")

_JOBS = {"SchedulerJob", "TriggererJob"}


@hookimpl
def on_starting(component: object) -> None:
    """Prepare when one of Airflow's jobs starts.

    Args:
        component: Airflow's job that starts.
    """
    if getattr(component, "job_type", None) in _JOBS:
        _import_storage()
        sweep_aside()


def prepare_celery_worker() -> None:
    """Prepare this process, `airflow celery worker`, which is none of Airflow's jobs.

    It imports before it forks its pool, and sweeps when it has reached its broker.
    """
    from celery.signals import worker_init, worker_ready

    worker_init.connect(_worker_init, weak=False)
    worker_ready.connect(_worker_ready, weak=False)


def _worker_init(**_: object) -> None:
    _import_storage()


def _worker_ready(**_: object) -> None:
    sweep_aside()


def _import_storage() -> None:
    try:
        if remote := _remote():
            from tradewind.logging.connection import import_storage

            import_storage(remote.settings)
    except Exception:
        # A component must start whatever happens in here.
        log.warning("the storage's libraries were not imported early", exc_info=True)


def _remote() -> TradewindRemoteLogIO | None:
    from airflow.logging_config import get_remote_task_log

    from tradewind.logging.remote import TradewindRemoteLogIO

    remote = get_remote_task_log()
    return remote if isinstance(remote, TradewindRemoteLogIO) else None


def sweep_aside() -> None:
    """Sweep in a process of its own: this one may hold journals, and it is about to fork."""
    try:
        remote = _remote()
        if remote is None or not remote.settings.sweep_on_start:
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
