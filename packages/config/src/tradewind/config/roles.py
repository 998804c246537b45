# SPDX-License-Identifier: Apache-2.0
"""Which Airflow component a process is."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ROLES", "detect"]

ROLES: tuple[str, ...] = (
    "api-server",
    "cli",
    "dag-processor",
    "scheduler",
    "standalone",
    "triggerer",
    "worker",
)
"""Every role that settings may depend on; `cli` stands for any other Airflow process."""

_COMMANDS = {
    "api-server": "api-server",
    "dag-processor": "dag-processor",
    "scheduler": "scheduler",
    "standalone": "standalone",
    "triggerer": "triggerer",
}
_WORKER_GROUPS = {"celery", "edge"}


def detect(argv: Sequence[str] | None = None) -> str:
    """Tell the role from a command line.

    Forked children keep the parent's `sys.argv`, and multiprocessing hands it to spawned ones, so the pool
    processes of a component agree with it.

    Args:
        argv: The command line; `sys.argv` when None.

    Returns:
        One of `ROLES`.

    Example:
        >>> detect(["/usr/bin/airflow", "celery", "worker", "--queues", "etl"])
        'worker'
    """
    words = list(sys.argv if argv is None else argv)
    if not words:
        return "cli"
    program = PurePath(words[0])
    if program.stem != "airflow" and program.parts[-2:] != ("airflow", "__main__.py"):
        return "cli"
    commands = [word for word in words[1:] if not word.startswith("-")]
    if commands[:1] and commands[0] in _COMMANDS:
        return _COMMANDS[commands[0]]
    if commands[1:2] == ["worker"] and commands[0] in _WORKER_GROUPS:
        return "worker"
    return "cli"
