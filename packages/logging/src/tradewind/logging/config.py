# SPDX-License-Identifier: Apache-2.0
"""The settings, read from Airflow's configuration and checked."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tradewind.logging.exceptions import LogSettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SECTION", "LogSettings", "from_conf"]

SECTION = "tradewind_logging"


@dataclass(frozen=True)
class LogSettings:
    """How logs are recorded.

    Args:
        remote_base: `[logging] remote_base_log_folder` without a slash at the end; any fsspec URL.
        local_base: `[logging] base_log_folder`.
        conn_id: `[logging] remote_log_conn_id`, or None.
        delete_local_logs: Delete a local file after its upload was confirmed, instead of emptying it.
        encrypt_s3: `[logging] encrypt_s3_logs`.
        flush_interval_seconds: A new line is sent at the latest this long after the last sending.
        first_flush_seconds: ... and the first line of a task this long after it was written.
        part_bytes: Size from which on an object is no longer replaced by a larger one.
        economy_after_seconds: Age of a task from which on `economy_interval_seconds` applies.
        economy_interval_seconds: Flush interval of an old task.
        max_puts_per_second: Budget of one process.
        upload_timeout_seconds: Longest delay at the end of a task while the storage makes no progress.
        storage_options: Arguments of the fsspec file system, beside those of the connection.
        include_trigger_logs: Record triggers' logs too.
        read_block_bytes: Bytes of one read.
        read_cache_bytes: Disk that the api-server uses to keep what it has read of running logs; 0 for none.
        retention_days: `tradewind-logs retention` deletes logs older than this; 0 never.
        sweep_on_start: A worker sweeps when it starts.
    """

    remote_base: str
    local_base: Path
    conn_id: str | None = None
    delete_local_logs: bool = False
    encrypt_s3: bool = False
    flush_interval_seconds: float = 5.0
    first_flush_seconds: float = 1.0
    part_bytes: int = 4 << 20
    economy_after_seconds: float = 600.0
    economy_interval_seconds: float = 10.0
    max_puts_per_second: float = 50.0
    upload_timeout_seconds: float = 10.0
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    include_trigger_logs: bool = True
    read_block_bytes: int = 4 << 20
    read_cache_bytes: int = 64 << 20
    retention_days: int = 0
    sweep_on_start: bool = True

    @property
    def scheme(self) -> str:
        """The URL's scheme, for example `s3`."""
        return urlsplit(self.remote_base).scheme

    @property
    def shown_base(self) -> str:
        """`remote_base` without a user's password, for people."""
        parts = urlsplit(self.remote_base)
        user, at, host = parts.netloc.rpartition("@")
        if ":" not in user:
            return self.remote_base
        return parts._replace(netloc=f"{user.partition(':')[0]}{at}{host}").geturl()


def from_conf(conf: Any) -> LogSettings:  # Airflow's two configuration parsers share no importable type
    """Read the settings.

    Args:
        conf: Airflow's `conf`, of core or of the Task SDK.

    Raises:
        LogSettingsError: A setting is malformed.
    """
    base = (conf.get("logging", "remote_base_log_folder", fallback="") or "").rstrip("/")
    if not urlsplit(base).scheme:
        raise LogSettingsError(
            f"[logging] remote_base_log_folder={base!r}: expected a URL such as s3://bucket/logs, gs://bucket/logs, "
            "abfs://container/logs or file:///var/log/airflow"
        )
    defaults = LogSettings(remote_base=base, local_base=Path())
    return LogSettings(
        remote_base=base,
        local_base=Path(conf.get("logging", "base_log_folder")).expanduser(),
        conn_id=conf.get("logging", "remote_log_conn_id", fallback=None) or None,
        delete_local_logs=conf.getboolean("logging", "delete_local_logs", fallback=False),
        encrypt_s3=conf.getboolean("logging", "encrypt_s3_logs", fallback=False),
        flush_interval_seconds=_seconds(conf, "flush_interval_seconds", defaults.flush_interval_seconds),
        first_flush_seconds=_seconds(conf, "first_flush_seconds", defaults.first_flush_seconds),
        part_bytes=_whole(conf, "part_bytes", defaults.part_bytes, least=1 << 16, most=64 << 20),
        economy_after_seconds=_seconds(conf, "economy_after_seconds", defaults.economy_after_seconds),
        economy_interval_seconds=_seconds(conf, "economy_interval_seconds", defaults.economy_interval_seconds),
        max_puts_per_second=_seconds(conf, "max_puts_per_second", defaults.max_puts_per_second, unit="puts"),
        upload_timeout_seconds=_seconds(conf, "upload_timeout_seconds", defaults.upload_timeout_seconds),
        storage_options=_options(conf),
        include_trigger_logs=_flag(conf, "include_trigger_logs", default=True),
        read_block_bytes=_whole(conf, "read_block_bytes", defaults.read_block_bytes, least=1 << 12, most=64 << 20),
        read_cache_bytes=_whole(conf, "read_cache_bytes", defaults.read_cache_bytes, least=0, most=64 << 30),
        retention_days=_whole(conf, "retention_days", 0, least=0, most=36500),
        sweep_on_start=_flag(conf, "sweep_on_start", default=True),
    )


def _text(conf: Any, key: str) -> str | None:
    value = conf.get(SECTION, key, fallback=None)
    return None if value is None or not str(value).strip() else str(value).strip()


def _seconds(conf: Any, key: str, default: float, *, unit: str = "seconds") -> float:
    text = _text(conf, key)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise LogSettingsError(f"[{SECTION}] {key}={text!r}: expected a number of {unit} above 0")
    return value


def _whole(conf: Any, key: str, default: int, *, least: int, most: int) -> int:
    text = _text(conf, key)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
        raise LogSettingsError(f"[{SECTION}] {key}={text!r}: expected a whole number from {least} to {most}")
    return int(text)


def _flag(conf: Any, key: str, *, default: bool) -> bool:
    text = _text(conf, key)
    if text is None:
        return default
    if text.lower() not in {"true", "false", "1", "0", "t", "f"}:
        raise LogSettingsError(f"[{SECTION}] {key}={text!r}: expected True or False")
    return text.lower() in {"true", "1", "t"}


def _options(conf: Any) -> Mapping[str, Any]:
    text = _text(conf, "storage_options")
    if text is None:
        return {}
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        # The value may hold a secret: it is not shown.
        raise LogSettingsError(f'[{SECTION}] storage_options: expected a JSON object, for example {{"anon": true}}')
    return options
