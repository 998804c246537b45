# SPDX-License-Identifier: Apache-2.0
"""A log that is written and recorded in this process, as Airflow's supervisor does it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import structlog

from tradewind.logging import layout
from tradewind.logging.config import LogSettings
from tradewind.logging.remote import TradewindRemoteLogIO

if TYPE_CHECKING:
    from pathlib import Path

    from support.object_storage import S3Server
    from tradewind.logging.store import Store

__all__ = ["LOG", "Recording", "s3_options", "stored"]

LOG = "dag_id=a/run_id=r/task_id=t/attempt=1.log"


def s3_options(s3: S3Server, url: str | None = None, *, read_timeout: int = 60) -> dict[str, Any]:
    """Arguments of s3fs for a server, or for a proxy before it; it gives up soon."""
    return {
        "key": s3.key,
        "secret": s3.secret,
        "endpoint_url": url or s3.url,
        "client_kwargs": {"region_name": s3.region},
        "config_kwargs": {"connect_timeout": 1, "read_timeout": read_timeout, "retries": {"max_attempts": 1}},
    }


class Recording:
    """A log that is being written and recorded.

    Args:
        home: The base log folder.
        settings: Settings that differ from a quick recording into `s3://task-logs/airflow`.
    """

    def __init__(self, home: Path, **settings: Any) -> None:
        home.mkdir(exist_ok=True)
        values = {
            "remote_base": "s3://task-logs/airflow",
            "first_flush_seconds": 0.2,
            "flush_interval_seconds": 0.3,
            "upload_timeout_seconds": 2.0,
        }
        self.io = TradewindRemoteLogIO(LogSettings(local_base=home, **{**values, **settings}))
        self.path = home / LOG
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open("ab")
        self.logger = structlog.wrap_logger(
            structlog.BytesLogger(self.file),
            processors=[
                structlog.processors.TimeStamper(fmt="iso"),
                *self.io.processors,
                lambda _logger, _name, event: json.dumps(event).encode(),
            ],
        )

    def write(self, lines: int, size: int = 0) -> bytes:
        """Write lines and return the whole file."""
        for number in range(lines):
            self.logger.info("a line", number=number, more="x" * size)
        return self.path.read_bytes()

    def end(self) -> float:
        """Finish the log; returns how many seconds it took."""
        begin = time.monotonic()
        self.io.upload(LOG)
        self.file.close()
        return time.monotonic() - begin


def stored(store: Store) -> bytes:
    """The log as a reader sees it, each session's bytes once."""
    return b"".join(
        store.read(segment.key, segment.start, segment.size)
        for session in layout.sessions(LOG, store.list(LOG))
        for segment in session.segments
    )
