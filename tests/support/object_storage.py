# SPDX-License-Identifier: Apache-2.0
"""A real S3 server for tests: moto, as a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.request import urlopen

from support.airflow_server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["S3Server", "running_s3"]

START_SECONDS = 60.0


class S3Server:
    """A moto server on 127.0.0.1 that can be stopped and started again, without its objects.

    Args:
        port: Its port.
    """

    key, secret, region = "test-key", "test-secret", "us-east-1"

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urlopen(self.url, timeout=5):  # noqa: S310 - our own server
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def create_bucket(self, name: str) -> None:
        """Make a bucket."""
        self.client().create_bucket(Bucket=name)

    def client(self):
        """A boto3 client of this server."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=self.region,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
        )

    def connection_uri(self) -> str:
        """An Airflow connection of type aws to it."""
        from urllib.parse import quote

        return f"aws://{self.key}:{self.secret}@/?endpoint_url={quote(self.url, safe='')}&region_name={self.region}"


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """A running server."""
    server = S3Server(free_port())
    server.start()
    try:
        yield server
    finally:
        server.stop()
