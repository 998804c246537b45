# SPDX-License-Identifier: Apache-2.0
"""Every kind of access that a connection to Google or Azure can hold reaches a real local server."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from support.object_storage import AzuriteServer, running_azurite

from tradewind.logging.config import LogSettings
from tradewind.logging.connection import open_with_connection
from tradewind.logging.exceptions import LogSettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.cloud

LOG = "dag_id=a/run_id=b/attempt=1.log"
SECRET = "Sup3rS3cretValue"  # noqa: S105 - of nobody
ROBOT = "robot@project.iam.gserviceaccount.com"


def settings(base: str, tmp_path: Path, **more: Any) -> LogSettings:
    return LogSettings(remote_base=base, local_base=tmp_path, **{"conn_id": "logs", **more})


def works(chosen: LogSettings, text: str | None) -> Any:
    store = open_with_connection(chosen, text)
    store.delete([LOG])
    assert store.create(LOG, b"0123456789")
    assert not store.create(LOG, b"again")
    assert store.read(LOG, 3, 2) == b"34"
    assert store.list(LOG) == {LOG: 10}
    return store


class Tokens:
    """A server that gives out access tokens, as Google's, Entra's and a managed identity's do."""

    def __init__(self, **answer: object) -> None:
        self.asked: list[dict[str, Any]] = []
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            def give(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                parts = urlsplit(self.path)
                fields = {k: v[0] for k, v in parse_qs(body or parts.query).items()}
                tokens.asked.append({"path": parts.path, **fields})
                content = json.dumps({"token_type": "Bearer", "access_token": "token", **answer}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = give  # noqa: N815 - the names that the base calls

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def serving(tokens: Tokens) -> Iterator[Tokens]:
    thread = threading.Thread(target=tokens.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield tokens
    finally:
        tokens.server.shutdown()
        tokens.server.server_close()
        thread.join()


@pytest.fixture
def google() -> Iterator[Tokens]:
    # gcsfs asks again five minutes before the end: these are good for a second.
    with serving(Tokens(expires_in=301)) as tokens:
        yield tokens


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def pem(key: rsa.RSAPrivateKey) -> str:
    pkcs8 = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption()).decode()


@pytest.fixture
def keyfile(private_key, google) -> dict[str, str]:
    return {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "1",
        "private_key": pem(private_key),
        "client_email": ROBOT,
        "token_uri": f"http://{google.address}/token",
    }


def signed_by(asked: dict[str, Any]) -> str:
    claims = asked["assertion"].split(".")[1]
    found: str = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["iss"]
    return found


@pytest.mark.parametrize("kind", ["keyfile_dict", "prefixed", "key_path", "environment"])
def test_a_google_service_account_is_used_and_its_token_renewed(
    gcs, gcs_bucket, google, keyfile, tmp_path, kind, monkeypatch
):
    path = tmp_path / "key.json"
    path.write_text(json.dumps(keyfile))
    if kind == "environment":
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    given = {
        "keyfile_dict": {"keyfile_dict": json.dumps(keyfile)},
        "prefixed": {"extra__google_cloud_platform__keyfile_dict": json.dumps(keyfile)},
        "key_path": {"key_path": str(path)},
        "environment": {},
    }[kind]
    text = json.dumps({"conn_type": "google_cloud_platform", "extra": {**given, "gcs.endpoint": gcs.url}})
    store = works(settings(f"gs://{gcs_bucket}/logs", tmp_path), text)
    before = len(google.asked)
    assert {signed_by(asked) for asked in google.asked} == {ROBOT}
    time.sleep(1.2)
    assert store.read(LOG) == b"0123456789"
    assert len(google.asked) > before


def test_a_connection_of_the_supervisor_is_a_uri(gcs, gcs_bucket, google, keyfile, tmp_path):
    from airflow.sdk.definitions.connection import Connection

    extra = json.dumps({"keyfile_dict": json.dumps(keyfile), "gcs.endpoint": gcs.url})
    uri = Connection(conn_id="logs", conn_type="google_cloud_platform", extra=extra).get_uri()
    works(settings(f"gcs://{gcs_bucket}/logs", tmp_path), uri)
    assert google.asked


def test_without_a_connection_google_key_path_is_used(gcs, gcs_bucket, google, keyfile, tmp_path, monkeypatch):
    path = tmp_path / "key.json"
    path.write_text(json.dumps(keyfile))
    monkeypatch.setenv("AIRFLOW__LOGGING__GOOGLE_KEY_PATH", str(path))
    chosen = settings(f"gs://{gcs_bucket}/logs", tmp_path, conn_id=None, storage_options={"endpoint_url": gcs.url})
    works(chosen, None)
    assert {signed_by(asked) for asked in google.asked} == {ROBOT}


def test_an_impersonation_chain_is_followed(gcs, gcs_bucket, keyfile, tmp_path):
    from google.auth.impersonated_credentials import Credentials

    other = "logs@other.iam.gserviceaccount.com"
    extra = {"keyfile_dict": json.dumps(keyfile), "impersonation_chain": other}
    text = json.dumps({"conn_type": "google_cloud_platform", "extra": extra})
    found = open_with_connection(settings(f"gs://{gcs_bucket}/logs", tmp_path), text).filesystem.credentials.credentials
    assert isinstance(found, Credentials)
    assert found.service_account_email == other


def test_storage_options_win_over_the_connection(gcs, gcs_bucket, tmp_path):
    chosen = settings(f"gs://{gcs_bucket}/logs", tmp_path, storage_options={"endpoint_url": gcs.url})
    works(chosen, gcs.connection(**{"gcs.endpoint": "http://127.0.0.1:1"}))


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"keyfile_dict": f'{{"private_key": "{SECRET}"'}, "keyfile_dict"),
        ({"keyfile_dict": json.dumps({"private_key": SECRET})}, "keyfile_dict"),
        ({"key_path": f"/nowhere/{SECRET}.json"}, "key_path"),
    ],
)
def test_a_google_key_that_is_none_is_refused_without_its_text(tmp_path, extra, expected):
    text = json.dumps({"conn_type": "google_cloud_platform", "extra": extra})
    with pytest.raises(LogSettingsError, match=rf"'logs'.*{expected}") as caught:
        open_with_connection(settings("gs://bucket/logs", tmp_path), text)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("base", ["gs://bucket/logs", "wasb://logs", "abfs://container/logs"])
def test_a_connection_of_another_cloud_is_named_with_the_right_type(tmp_path, base):
    right = "google_cloud_platform" if base.startswith("gs") else "wasb"
    with pytest.raises(LogSettingsError, match=rf"'logs'.*'aws'.*'{right}'"):
        open_with_connection(settings(base, tmp_path), "aws://user:password@/")


def test_two_accounts_are_a_contradiction(tmp_path):
    text = json.dumps({"conn_type": "wasb", "login": "other", "password": base64.b64encode(SECRET.encode()).decode()})
    chosen = settings("wasbs://logs@acme.blob.core.windows.net/prod", tmp_path)
    assert open_with_connection(chosen, text).filesystem.account_name is None
    with_host = json.dumps({**json.loads(text), "host": "https://other.blob.core.windows.net"})
    with pytest.raises(LogSettingsError, match=r"acme\.blob.*'logs'.*other\.blob"):
        open_with_connection(chosen, with_host)


def sas(server: AzuriteServer) -> str:
    from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

    return generate_account_sas(
        server.account,
        server.key,
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions(read=True, write=True, delete=True, list=True, create=True),
        datetime.now(timezone.utc) + timedelta(hours=1),
    )


@pytest.mark.azurite
@pytest.mark.parametrize(
    "kind", ["connection_string", "password", "shared_access_key", "account_key", "prefixed", "sas_token", "options"]
)
def test_an_azure_connection_with_a_key(azurite, azure_container, tmp_path, kind):
    key = azurite.key
    extra, fields = {
        "connection_string": ({"connection_string": azurite.connection_string}, {}),
        "password": ({}, {"host": azurite.url, "login": azurite.account, "password": key}),
        "shared_access_key": ({"shared_access_key": key}, {"host": azurite.url}),
        "account_key": ({"account_key": key}, {"host": azurite.url}),
        "prefixed": ({"extra__wasb__shared_access_key": key}, {"host": azurite.url}),
        "sas_token": ({"sas_token": sas(azurite)}, {"host": azurite.url}),
        "options": ({}, {"login": "nobody", "password": key}),
    }[kind]
    options = {"connection_string": azurite.connection_string} if kind == "options" else {}
    chosen = settings(f"abfs://{azure_container}/logs", tmp_path, storage_options=options)
    works(chosen, azurite.connection(extra=extra, **fields))


@pytest.mark.azurite
def test_a_storage_that_is_opened_again_does_not_pile_up(azurite, azure_container, tmp_path):
    chosen = settings(f"abfs://{azure_container}/logs", tmp_path)
    identity = azurite.connection(
        extra={"managed_identity_client_id": "the-identity"}, host="acme.blob.core.windows.net"
    )
    for text in (azurite.connection(), identity):
        assert len({id(open_with_connection(chosen, text).filesystem) for _ in range(5)}) == 1


@pytest.mark.azurite
def test_an_azure_connection_of_the_supervisor_is_a_uri(azurite, azure_container, tmp_path):
    from airflow.sdk.definitions.connection import Connection

    fields = {"host": azurite.url, "login": azurite.account, "password": azurite.key}
    uri = Connection(conn_id="logs", conn_type="wasb", **fields).get_uri()
    works(settings(f"abfs://{azure_container}/logs", tmp_path), uri)


@pytest.mark.azurite
def test_a_wasb_folder_lies_in_the_container_that_airflow_names(azurite, azure_container, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__AZURE_REMOTE_LOGGING__REMOTE_WASB_LOG_CONTAINER", azure_container)
    works(settings("wasb://wasb-logs/prod", tmp_path), azurite.connection())
    with azurite.client() as client:
        names = [blob.name for blob in client.get_container_client(azure_container).list_blobs()]
    assert names == [f"wasb-logs/prod/{LOG}"]


WRITER = """
import sys
from pathlib import Path
from tradewind.logging.config import LogSettings
from tradewind.logging.connection import open_with_connection
store = open_with_connection(LogSettings(remote_base=sys.argv[1], local_base=Path(), conn_id="logs"), sys.argv[2])
assert store.create("a.log", b"text") and store.read("a.log") == b"text"
print("done")
"""


@pytest.fixture(scope="module")
def secure(tmp_path_factory, private_key) -> Iterator[tuple[AzuriteServer, Path]]:
    """An Azurite with TLS, which takes tokens; and its certificate and key in one file."""
    folder = tmp_path_factory.mktemp("secure")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private_key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private_key, hashes.SHA256())
    )
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key.write_text(pem(private_key))
    tls = ["--cert", str(cert), "--key", str(key), "--oauth", "basic"]
    with running_azurite(folder / "blobs", *tls) as server:
        yield server, cert


def token_for_storage() -> str:
    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + 3600,
    }
    parts = [{"typ": "JWT", "alg": "none"}, claims]
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts) + ".c2ln"


@pytest.mark.azurite
@pytest.mark.parametrize("kind", ["service principal", "managed identity"])
def test_an_azure_connection_without_a_key_takes_tokens(secure, kind):
    server, cert = secure
    soon = int(time.time()) + 3600
    tokens = Tokens(access_token=token_for_storage(), expires_in=3600, expires_on=soon, resource="storage")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AZURE_", "IDENTITY_", "MSI_"))}
    env["SSL_CERT_FILE"] = str(cert)
    if kind == "service principal":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, cert.with_name("key.pem"))
        tokens.server.socket = context.wrap_socket(tokens.server.socket, server_side=True)
        config = {"authority": f"https://{tokens.address}"}
        extra: dict[str, Any] = {"tenant_id": "tenant", "client_secret_auth_config": config}
        fields = {"login": "client", "password": SECRET}
    else:
        extra, fields = {"managed_identity_client_id": "the-identity"}, {}
        env.update(IDENTITY_ENDPOINT=f"http://{tokens.address}/msi", IDENTITY_HEADER="header")
    container = f"logs-{kind.replace(' ', '-')}"
    # The container is made with the key, by a client that trusts the certificate.
    make = (
        "import sys; from azure.storage.blob import BlobServiceClient as C\n"
        "C.from_connection_string(sys.argv[1], connection_verify=sys.argv[2]).create_container(sys.argv[3])\n"
    )
    run(make, server.connection_string, str(cert), container, env=env)
    text = server.connection(extra=extra, host=server.url, **fields)
    with serving(tokens):
        run(WRITER, f"abfs://{container}/logs", text, env=env)
    assert tokens.asked
    for asked in tokens.asked:
        if kind == "service principal":
            assert (asked["path"], asked["client_id"], asked["client_secret"]) == (
                "/tenant/oauth2/v2.0/token",
                "client",
                SECRET,
            )
        else:
            assert (asked["path"], asked["client_id"]) == ("/msi", "the-identity")


def run(code: str, *args: str, env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, env=env, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
