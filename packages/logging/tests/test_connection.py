# SPDX-License-Identifier: Apache-2.0
"""What an Airflow connection to S3 says is what happens at a real server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from tradewind.logging.config import LogSettings
from tradewind.logging.connection import from_environment, open_with_connection
from tradewind.logging.exceptions import LogSettingsError
from tradewind.logging.remote import check_installed
from tradewind.logging.store import split_azure

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = "dag_id=a/run_id=b/attempt=1.log"
SECRET = "Sup3rS3cretValue"  # noqa: S105 - of a local server


def connection(s3, **extra: Any) -> str:
    return json.dumps(
        {
            "conn_type": "aws",
            "login": s3.key,
            "password": s3.secret,
            "extra": {"endpoint_url": s3.url, "region_name": s3.region, **extra},
        }
    )


@pytest.fixture
def settings(s3, tmp_path) -> LogSettings:
    return LogSettings(remote_base=f"s3://{s3.new_bucket()}/logs", local_base=tmp_path, conn_id="logs")


def with_(settings: LogSettings, **changes: Any) -> LogSettings:
    return LogSettings(**{**settings.__dict__, **changes})


def head(s3, settings: LogSettings, key: str = LOG) -> dict[str, Any]:
    bucket = settings.remote_base.split("/")[2]
    found: dict[str, Any] = s3.client.head_object(Bucket=bucket, Key=f"logs/{key}")
    return found


def test_a_connection_in_the_environment_is_a_uri_or_json(s3, settings, monkeypatch):
    uri = f"aws://{s3.key}:{s3.secret}@/?endpoint_url={quote(s3.url, safe='')}&region_name={s3.region}"
    for number, text in enumerate((uri, connection(s3))):
        monkeypatch.setenv("AIRFLOW_CONN_LOGS", text)
        store = open_with_connection(settings, from_environment("logs"))
        assert store.create(f"{LOG}.{number}", b"text")
        assert store.read(f"{LOG}.{number}") == b"text"
    assert from_environment(None) is None


def test_every_object_is_encrypted_with_encrypt_s3_logs(s3, settings, tmp_path):
    file = tmp_path / "local.log"
    file.write_bytes(bytes(11 << 20))
    store = open_with_connection(with_(settings, encrypt_s3=True), connection(s3))
    store.create("created", b"1")
    store.put("put", b"1")
    store.put_file("multipart", file)
    assert [head(s3, settings, key).get("ServerSideEncryption") for key in ("created", "put", "multipart")] == [
        "AES256"
    ] * 3


@pytest.mark.parametrize("place", ["connection", "storage_options"])
@pytest.mark.parametrize("encrypt", [True, False])
def test_a_kms_key_wins_over_encrypt_s3_logs(s3, settings, tmp_path, place, encrypt):
    file = tmp_path / "local.log"
    file.write_bytes(bytes(11 << 20))
    key = f"arn:aws:kms:{s3.region}:123456789012:key/0a1b"
    kms = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}
    extra = {"service_config": {"s3": {"extra_args": kms}}} if place == "connection" else {}
    options = {"s3_additional_kwargs": kms} if place == "storage_options" else {}
    chosen = with_(settings, encrypt_s3=encrypt, storage_options=options)
    store = open_with_connection(chosen, connection(s3, **extra))
    store.create("created", b"1")
    store.put("put", b"1")
    store.put_file("multipart", file)
    for name in ("created", "put", "multipart"):
        found = head(s3, settings, name)
        assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", key)


class Watching:
    """A real S3 and STS server (moto) seen through a proxy, which notes who asks, and lets credentials expire."""

    def __init__(self, target: str) -> None:
        self.asked: list[str] = []
        self.assumed: list[str] = []
        watching = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                while self.headers.get("Transfer-Encoding") == "chunked":
                    size = int(self.rfile.readline(), 16)
                    body += self.rfile.read(size)
                    self.rfile.readline()
                    if not size:
                        break
                identity = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
                dropped = {"host", "content-length", "transfer-encoding", "expect"}
                headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
                # Without a type urllib calls it a form, and moto empties it.
                headers.setdefault("Content-Type", "application/octet-stream")
                request = Request(  # noqa: S310 - our own server
                    f"{target}{self.path}", data=body or None, headers=headers, method=self.command
                )
                try:
                    with urlopen(request, timeout=20) as answer:  # noqa: S310 - our own server
                        status, fields, content = answer.status, answer.headers, answer.read()
                except HTTPError as error:
                    status, fields, content = error.code, error.headers, error.read()
                if b"Action=AssumeRole" in body:
                    watching.assumed.append(re.findall(rb"<AccessKeyId>(\w+)<", content)[0].decode())
                    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
                    content = re.sub(rb"<Expiration>[^<]+<", f"<Expiration>{soon}<".encode(), content)
                elif identity:
                    watching.asked.append(identity[1])
                self.send_response(status)
                for name, value in fields.items():
                    if name.lower() not in {"content-length", "connection", "transfer-encoding", "date", "server"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = pass_on  # noqa: N815 - the names that the base calls

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def watching(s3) -> Iterator[Watching]:
    found = Watching(s3.url)
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def test_an_assumed_role_is_assumed_again_when_its_credentials_expire(s3, settings, watching):
    text = connection(
        s3,
        endpoint_url=watching.url,
        role_arn="arn:aws:iam::123456789012:role/logs",
        service_config={"sts": {"endpoint_url": watching.url}},
    )
    store = open_with_connection(settings, text)
    store.put(LOG, b"first")
    assert watching.asked
    first = set(watching.asked)
    assert first <= set(watching.assumed)
    assert s3.key not in first
    time.sleep(2.5)
    watching.asked.clear()
    store.put(LOG, b"second")
    assert store.read(LOG) == b"second"
    second = set(watching.asked)
    assert second
    assert second <= set(watching.assumed)
    assert not first & second


def test_without_such_a_connection_the_machines_own_credentials_are_used(s3, settings, airflow_db, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
    chosen = with_(settings, conn_id="nowhere", storage_options={"endpoint_url": s3.url})
    store = open_with_connection(chosen, None)
    assert store.create(LOG, b"text")


@contextmanager
def refused(*fragments: str) -> Iterator[None]:
    with pytest.raises(LogSettingsError) as caught:
        yield
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_connection_of_another_type_is_named_with_the_right_one(settings):
    with refused("'logs'", "'postgres'", "'aws'"):
        open_with_connection(settings, f"postgres://user:{SECRET}@host/")


@pytest.mark.parametrize(
    "text",
    [
        f"aws://user:{SECRET}@x://y://z",
        f'{{"conn_type": "aws", "password": "{SECRET}"',
        f'{{"conn_type": "aws", "port": "{SECRET}"}}',
    ],
)
def test_a_malformed_connection_is_named_without_what_it_says(settings, text):
    with refused("'logs'"):
        open_with_connection(settings, text)


def test_a_storage_that_takes_no_connection_says_so(tmp_path):
    settings = LogSettings(remote_base="memory://logs", local_base=tmp_path, conn_id="logs")
    with refused("'logs'", "memory://", "storage_options"):
        open_with_connection(settings, "aws://")


@pytest.mark.parametrize(
    ("url", "module", "type_", "extra"),
    [
        ("s3://b/logs", "airflow.providers.amazon.aws.hooks", "aws", "s3"),
        ("gs://b/logs", "airflow.providers.google.common.hooks", "google_cloud_platform", "gcs"),
        ("abfs://c/logs", "airflow.providers.microsoft.azure.utils", "wasb", "azure"),
        ("wasb://c@a.blob.core.windows.net/logs", "adlfs", "wasb", "azure"),
    ],
)
def test_a_missing_provider_is_named_with_the_extra_that_installs_it(url, module, type_, extra):
    code = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "from pathlib import Path\n"
        "from tradewind.logging.config import LogSettings\n"
        "from tradewind.logging.connection import open_with_connection\n"
        "from tradewind.logging.exceptions import LogSettingsError\n"
        "settings = LogSettings(remote_base=sys.argv[2], local_base=Path(), conn_id='logs')\n"
        "try: open_with_connection(settings, sys.argv[3])\n"
        "except LogSettingsError as error: print(error)\n"
    )
    text = f"{type_}://user:{SECRET}@host/"
    done = subprocess.run([sys.executable, "-c", code, module, url, text], capture_output=True, text=True, check=True)
    assert f"tradewind-logging[{extra}]" in done.stdout
    assert "'logs'" in done.stdout
    assert SECRET not in done.stdout


def test_a_missing_provider_is_named_when_airflow_starts(monkeypatch):
    monkeypatch.setitem(sys.modules, "airflow.providers.amazon", None)
    check_installed("s3://bucket/logs")
    with pytest.raises(LogSettingsError, match=r"'logs'.*airflow\.providers\.amazon: pip .*\[s3\]"):
        check_installed("s3://bucket/logs", "logs")


def test_nothing_of_a_cloud_is_imported_before_it_is_needed():
    code = (
        "import sys\n"
        "import tradewind.logging.connection, tradewind.logging.remote\n"
        "print([n for n in ('boto3', 's3fs', 'gcsfs', 'adlfs', 'google.auth', 'azure.identity') if n in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("url", "container", "expected"),
    [
        ("abfs://logs/prod", None, ("logs/prod", "")),
        ("abfs://logs", None, ("logs", "")),
        ("abfss://logs@acme.dfs.core.windows.net/prod/x", "other", ("logs/prod/x", "acme.blob.core.windows.net")),
        ("wasbs://logs@acme.blob.core.windows.net", None, ("logs", "acme.blob.core.windows.net")),
        # What Airflow's own remote logging means by it.
        ("wasb://wasb-prod/tasks", None, ("airflow-logs/wasb-prod/tasks", "")),
        ("wasb://prod", "logs", ("logs/prod", "")),
    ],
)
def test_an_azure_url_names_container_and_account(url, container, expected):
    assert split_azure(url, container) == expected


def test_settings_stay_as_they_were(s3, settings):
    chosen = with_(settings, encrypt_s3=True, storage_options={"config_kwargs": {"read_timeout": 9}})
    open_with_connection(chosen, connection(s3))
    assert chosen.storage_options == {"config_kwargs": {"read_timeout": 9}}
    assert Path(chosen.local_base) == settings.local_base
