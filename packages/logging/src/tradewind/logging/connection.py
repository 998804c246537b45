# SPDX-License-Identifier: Apache-2.0
"""From an Airflow connection to a file system.

A supervisor can't look a connection up while it runs, and Airflow shows it in the environment for a moment
only; so its URI is kept in memory and the file system is made from it later, in the shipper's thread. For
S3 the amazon provider's own hook makes the session, so every option that it knows works: endpoint_url,
region, role_arn with refreshed credentials, config_kwargs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tradewind.logging.exceptions import LogSettingsError
from tradewind.logging.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tradewind.logging.config import LogSettings

__all__ = ["from_environment", "open_with_connection"]


def from_environment(conn_id: str | None) -> str | None:
    """The connection's URI, if Airflow or the user has put it into the environment right now.

    Args:
        conn_id: The connection's id.
    """
    return os.environ.get(f"AIRFLOW_CONN_{conn_id.upper()}") if conn_id else None


def open_with_connection(settings: LogSettings, uri: str | None) -> Store:
    """Open the storage that the settings name.

    Args:
        settings: The settings.
        uri: The connection's URI as seen in the environment, or None to look it up by its id.

    Raises:
        LogSettingsError: The scheme's package is missing, or a connection is given for a scheme that takes none.
    """
    options = dict(settings.storage_options)
    if settings.scheme == "s3":
        extra = {"ServerSideEncryption": "AES256"} if settings.encrypt_s3 else {}
        options["s3_additional_kwargs"] = {**extra, **options.get("s3_additional_kwargs", {})}
        if settings.conn_id:
            filesystem = _s3(settings.conn_id, uri, options)
            return open_store(settings.remote_base, filesystem=filesystem)
    elif settings.conn_id:
        raise LogSettingsError(
            f"[logging] remote_log_conn_id={settings.conn_id!r}: this version takes connections for s3:// only; "
            f"leave it empty and give the options of {settings.scheme}:// in [tradewind_logging] storage_options"
        )
    return open_store(settings.remote_base, options)


def _s3(conn_id: str, uri: str | None, options: Mapping[str, Any]) -> Any:  # an s3fs file system has no type hints
    try:
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook
        from s3fs import S3FileSystem
    except ImportError as error:
        raise LogSettingsError(
            f"[logging] remote_log_conn_id={conn_id!r} needs the amazon provider with s3fs: "
            "pip install 'tradewind-logging[s3]'"
        ) from error

    class Hook(S3Hook):  # type: ignore[misc, unused-ignore] # untyped where the provider is not installed
        """The amazon provider's hook on a connection that is known already."""

        @classmethod
        def get_connection(cls, conn_id: str) -> Any:
            if uri is None:
                return super().get_connection(conn_id)
            from airflow.sdk.definitions.connection import Connection

            return Connection.from_uri(uri, conn_id=conn_id)

    hook = Hook(aws_conn_id=conn_id)
    extra = hook.conn_config.extra_config
    given = dict(options)
    config_kwargs = {**extra.get("config_kwargs", {}), **given.pop("config_kwargs", {})}
    return S3FileSystem(
        session=hook.get_session(deferrable=True),
        endpoint_url=hook.conn_config.get_service_endpoint_url(service_name="s3"),
        config_kwargs=config_kwargs,
        use_listings_cache=False,
        skip_instance_cache=True,
        **given,
    )
