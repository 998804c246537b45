# SPDX-License-Identifier: Apache-2.0
"""From an Airflow connection to a file system.

A supervisor can't look a connection up while it runs, and Airflow shows it in the environment for a moment
only; so its text is kept in memory and the file system is made from it later, in the shipper's thread. The
credentials come from the provider's own code where that can give out what an asynchronous file system takes:
a session of the amazon hook, credentials of the google hook; both refresh themselves. For Azure they are
chosen in the order of the provider's `WasbHook`, which can't.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tradewind.logging.exceptions import LogSettingsError
from tradewind.logging.store import BACKENDS, Store, keep_gcsfs_quiet, open_store, split_azure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tradewind.logging.config import LogSettings

__all__ = ["PROVIDERS", "from_environment", "import_storage", "open_with_connection"]

log = logging.getLogger("tradewind.logging")

PROVIDERS: Mapping[str, str] = {
    "abfs": "airflow.providers.microsoft.azure",
    "gcs": "airflow.providers.google",
    "s3": "airflow.providers.amazon",
}
"""The package that understands the connections of a storage, by fsspec protocol."""

# The first is what the error message recommends. `generic` is what Airflow's own hooks take silently.
_TYPES = {
    "abfs": ("wasb", "adls", "azure_data_lake", "azure", "generic"),
    "gcs": ("google_cloud_platform", "generic"),
    "s3": ("aws", "s3", "generic"),
}


def from_environment(conn_id: str | None) -> str | None:
    """The connection's URI or JSON, if Airflow or the user has put it into the environment right now.

    Args:
        conn_id: The connection's id.
    """
    return os.environ.get(f"AIRFLOW_CONN_{conn_id.upper()}") if conn_id else None


def import_storage(settings: LogSettings) -> None:
    """Import what opening the storage will need, for a process that is about to fork supervisors.

    Args:
        settings: The settings.

    Each supervisor would otherwise import it while its task runs. Only for S3: gcsfs may bring grpc, which must
    not be there before a fork. What is missing is reported where the storage is opened.
    """
    backend = BACKENDS.get(settings.scheme)
    if backend is None or backend.protocol != "s3":
        return
    with contextlib.suppress(ImportError):
        importlib.import_module("s3fs")
        if settings.conn_id:
            importlib.import_module("airflow.providers.amazon.aws.hooks.s3")


def open_with_connection(settings: LogSettings, uri: str | None) -> Store:
    """Open the storage that the settings name.

    Args:
        settings: The settings.
        uri: The connection's URI or JSON as seen in the environment, or None to look it up by its id.

    Raises:
        LogSettingsError: The scheme's package or provider is missing, or the connection is of a wrong type, is
            malformed, or is given for a scheme that takes none.
    """
    options = dict(settings.storage_options)
    backend = BACKENDS.get(settings.scheme)
    protocol = backend.protocol if backend else settings.scheme
    if protocol == "s3" and settings.encrypt_s3:
        given = options.get("s3_additional_kwargs", {})
        options["s3_additional_kwargs"] = {"ServerSideEncryption": "AES256", **given}
    container = _wasb_container() if settings.scheme in {"wasb", "wasbs"} else None
    if not settings.conn_id:
        if protocol == "gcs":
            _use_google_key_path(options)
        return open_store(settings.remote_base, options, container=container)
    if protocol not in _TYPES:
        raise LogSettingsError(
            f"[logging] remote_log_conn_id={settings.conn_id!r}: {settings.scheme}:// takes no connection, only "
            "s3, gs and abfs or wasb do; leave it empty and give the options of the file system in "
            "[tradewind_logging] storage_options"
        )
    connection = _connection(settings.conn_id, uri, protocol)
    make = {"abfs": _azure, "gcs": _gcs, "s3": _s3}[protocol]
    options["use_listings_cache"] = False
    try:
        filesystem = make(settings, connection, options)
    except ImportError as error:
        extra = BACKENDS[settings.scheme].extra
        raise LogSettingsError(
            f"[logging] remote_log_conn_id={settings.conn_id!r} on {settings.scheme}:// needs {PROVIDERS[protocol]} "
            f"and its file system: pip install 'tradewind-logging[{extra}]'"
        ) from error
    return open_store(settings.remote_base, filesystem=filesystem, container=container)


def _connection(conn_id: str, text: str | None, protocol: str) -> Any:  # the Task SDK's Connection, or None
    from airflow.sdk import BaseHook
    from airflow.sdk.definitions.connection import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        if text is None:
            found = BaseHook.get_connection(conn_id)
        elif text.lstrip().startswith("{"):
            found = Connection.from_json(text, conn_id=conn_id)
        else:
            found = Connection.from_uri(text, conn_id=conn_id)
        # A string that is no JSON shows only now.
        _ = found.extra_dejson
    except AirflowNotFoundException:
        log.warning(
            "[logging] remote_log_conn_id=%r: there is no such connection; this machine's own credentials are used",
            conn_id,
        )
        return None
    except Exception as error:  # noqa: BLE001 - a malformed one fails in many ways
        # Without the cause: Airflow's message repeats the URI with its password.
        raise LogSettingsError(
            f"[logging] remote_log_conn_id={conn_id!r}: the connection can't be read ({type(error).__name__}); "
            "expected a URI or a JSON object as Airflow documents them"
        ) from None
    expected = _TYPES[protocol]
    if found.conn_type and found.conn_type not in expected:
        raise LogSettingsError(
            f"[logging] remote_log_conn_id={conn_id!r} is a connection of type {found.conn_type!r}; "
            f"this storage needs one of type {expected[0]!r}"
        )
    return found


def _s3(settings: LogSettings, connection: Any, options: dict[str, Any]) -> Any:  # s3fs has no type hints
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.sdk.exceptions import AirflowNotFoundException
    from s3fs import S3FileSystem

    class Hook(S3Hook):  # type: ignore[misc, unused-ignore] # untyped where the provider is not installed
        """The amazon provider's hook on a connection that is known already."""

        @classmethod
        def get_connection(cls, conn_id: str) -> Any:
            if connection is None:
                raise AirflowNotFoundException(conn_id)
            return connection

    hook = Hook(aws_conn_id=settings.conn_id)
    extra = hook.conn_config.extra_config
    service = hook.conn_config.get_service_config("s3")
    config = {**extra.get("config_kwargs", {}), **options.pop("config_kwargs", {})}
    if proxy := service.get("proxy-uri"):
        config.setdefault("proxies", {"http": proxy, "https": proxy})
    if config.get("signature_version") == "unsigned":
        del config["signature_version"]
        options.setdefault("anon", True)
    client = dict(options.pop("client_kwargs", {}))
    if hook.conn_config.verify is not None:
        client.setdefault("verify", hook.conn_config.verify)
    written = {**service.get("extra_args", {}), **dict(settings.storage_options).get("s3_additional_kwargs", {})}
    options["s3_additional_kwargs"] = {**options.get("s3_additional_kwargs", {}), **written}
    options.setdefault("endpoint_url", hook.conn_config.get_service_endpoint_url(service_name="s3"))
    session = hook.get_session(deferrable=True)
    return S3FileSystem(
        session=session, client_kwargs=client, config_kwargs=config, skip_instance_cache=True, **options
    )


def _use_google_key_path(options: dict[str, Any]) -> None:
    # Without a connection Airflow's own remote logging takes [logging] google_key_path.
    if "token" not in options and (path := _conf("logging", "google_key_path")):
        options["token"] = path


def _gcs(settings: LogSettings, connection: Any, options: dict[str, Any]) -> Any:  # gcsfs has no type hints
    keep_gcsfs_quiet()
    from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
    from gcsfs import GCSFileSystem

    options["skip_instance_cache"] = True
    if connection is None:
        _use_google_key_path(options)
        return GCSFileSystem(**options)

    class Hook(GoogleBaseHook):  # type: ignore[misc, unused-ignore] # untyped where the provider is not installed
        """The google provider's hook on a connection that is known already."""

        @classmethod
        def get_connection(cls, conn_id: str) -> Any:
            return connection

    try:
        hook = Hook(gcp_conn_id=settings.conn_id)
        credentials, project = hook.get_credentials_and_project_id()
    except Exception as error:
        raise LogSettingsError(
            f"[logging] remote_log_conn_id={settings.conn_id!r}: the google provider makes no credentials from it "
            f"({type(error).__name__}); expected one of key_path (*.json), keyfile_dict, key_secret_name, "
            "credential_config_file, is_anonymous, or none of them for the machine's own identity"
        ) from error
    # The names that the provider's own file system has in the connection's extra.
    extra = hook.extras
    from_extra = {
        "endpoint_url": extra.get("gcs.endpoint"),
        "requester_pays": extra.get("gcs.requester-pays"),
        "session_kwargs": extra.get("gcs.session-kwargs"),
    }
    found = {name: value for name, value in from_extra.items() if value is not None}
    return GCSFileSystem(**{"token": credentials, "project": project or "", **found, **options})


def _wasb_container() -> str:
    return _conf("azure_remote_logging", "remote_wasb_log_container") or "airflow-logs"


def _azure(settings: LogSettings, connection: Any, options: dict[str, Any]) -> Any:  # adlfs has no type hints
    from adlfs import AzureBlobFileSystem
    from airflow.providers.microsoft.azure.utils import parse_blob_account_url

    if connection is None:
        raise LogSettingsError(f"[logging] remote_log_conn_id={settings.conn_id!r}: there is no such connection")
    _, host = split_azure(settings.remote_base)
    field = _AzureFields(connection)
    for name in ("connection_timeout", "read_timeout", "timeout"):
        if (seconds := field(name)) is not None:
            options.setdefault(name, int(seconds))
    if text := field("connection_string"):
        return AzureBlobFileSystem(**{"connection_string": text, **options})
    given = connection.host or ("" if host else field("account_name") or "")
    sas = field("sas_token") or ""
    if sas.startswith("https"):
        given, _, sas = sas.partition("?")
    if connection.conn_type in {"adls", "azure_data_lake"} and given and "." not in given:
        given = f"{given}.blob.core.windows.net"
    account_url = parse_blob_account_url(given or host, connection.login).rstrip("/")
    if host and urlsplit(account_url).netloc != host:
        raise LogSettingsError(
            f"[logging] remote_base_log_folder={settings.remote_base!r} names the account {host}, and the "
            f"connection {settings.conn_id!r} the account {urlsplit(account_url).netloc}: name it in one of them"
        )
    return AzureBlobFileSystem(**{**_azure_access(field, connection, account_url, sas), **options})


class _AzureFields:
    """The connection's extra, also with the prefixed names of old connections; empty texts count as missing."""

    def __init__(self, connection: Any) -> None:
        self._extra = connection.extra_dejson
        self._prefix = f"extra__{connection.conn_type}__"

    def __call__(self, name: str) -> Any:
        value = self._extra.get(name, self._extra.get(f"{self._prefix}{name}"))
        return None if value == "" else value


def _azure_access(field: _AzureFields, connection: Any, account_url: str, sas: str) -> dict[str, Any]:
    """Arguments of adlfs, by the first kind of access that the connection has, in the order of WasbHook."""
    parts = urlsplit(account_url)
    # An emulator's address has the account in its path.
    account = parts.path.strip("/") or parts.netloc.split(".")[0]
    named = {"account_name": account, "account_host": f"{parts.netloc}{parts.path}"}
    if tenant := field("tenant_id"):
        given = {
            "tenant_id": tenant,
            "client_id": connection.login or "",
            "client_secret": connection.password or "",
            **(field("client_secret_auth_config") or {}),
        }
        return {**named, "credential": _azure_credential("ClientSecretCredential", given)}
    if field("anon"):
        return {**named, "anon": True}
    # Spelled out as a connection string, adlfs takes an address that is not https:// too.
    endpoint = f"BlobEndpoint={account_url};AccountName={account}"
    if key := field("shared_access_key"):
        return {"connection_string": f"{endpoint};AccountKey={key}"}
    if sas:
        return {"connection_string": f"{endpoint};SharedAccessSignature={sas.lstrip('?')}"}
    if key := connection.password or field("account_key"):
        return {"connection_string": f"{endpoint};AccountKey={key}"}
    identity: dict[str, Any] = {}
    if client := field("managed_identity_client_id"):
        identity["managed_identity_client_id"] = client
    if client := field("workload_identity_client_id"):
        identity["workload_identity_client_id"] = client
    if tenant := field("workload_identity_tenant_id"):
        identity["workload_identity_tenant_id"] = tenant
        identity["additionally_allowed_tenants"] = [tenant]
    return {**named, "credential": _azure_credential("DefaultAzureCredential", identity)}


def _azure_credential(kind: str, arguments: Mapping[str, Any]) -> Any:  # the SDK is not always installed
    return _kept_azure_credential(os.getpid(), kind, json.dumps(arguments, sort_keys=True))


@lru_cache(maxsize=4)
def _kept_azure_credential(_pid: int, kind: str, arguments: str) -> Any:
    # adlfs lives as long as the process, so a new one for each opening would pile up. The same credential
    # gives the same file system; another process needs its own.
    from azure.identity import aio

    return getattr(aio, kind)(**json.loads(arguments))


def _conf(section: str, key: str) -> str | None:
    from tradewind.logging.remote import airflow_conf

    return airflow_conf().get(section, key, fallback=None) or None
