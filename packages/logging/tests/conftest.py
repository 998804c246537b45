# SPDX-License-Identifier: Apache-2.0
"""Storages for the tests of this component: memory, a folder, and S3 as a real local server."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tradewind.logging.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.register_assert_rewrite("store_contract")

START_SECONDS = 60.0


class S3:
    """A local S3 server with one bucket."""

    key, secret, region = "key", "Sup3rS3cretValue", "us-east-1"

    def __init__(self) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port: int = found.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self._process.kill()
                    pytest.fail("the S3 server (moto) does not start")
                time.sleep(0.1)
        import boto3

        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=self.region,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
        )
        self.bucket = self.new_bucket()

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of s3fs."""
        return {
            "key": self.key,
            "secret": self.secret,
            "endpoint_url": self.url,
            "client_kwargs": {"region_name": self.region},
            "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 2, "read_timeout": 5},
        }

    def new_bucket(self) -> str:
        """Make a bucket and give its name."""
        name = f"logs-{secrets.token_hex(4)}"
        self.client.create_bucket(Bucket=name)
        return name

    def store(self, bucket: str | None = None) -> Store:
        """An empty place in a bucket, which need not exist."""
        url = f"s3://{bucket or self.bucket}/{secrets.token_hex(4)}"
        return open_store(url, {**self.options, "skip_instance_cache": True})

    def stop(self) -> None:
        """End it at once; its objects are gone."""
        self.client.close()
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """The server that the tests share."""
    server = S3()
    yield server
    server.stop()


@pytest.fixture
def own_s3() -> Iterator[S3]:
    """A server that the test may stop."""
    server = S3()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "file", "s3"])
def store(request, tmp_path) -> Store:
    """An empty storage of each kind."""
    if request.param == "memory":
        return open_store(f"memory://{secrets.token_hex(4)}/logs")
    if request.param == "file":
        return open_store(f"file://{tmp_path}/remote")
    found: Store = request.getfixturevalue("s3").store()
    return found
