# SPDX-License-Identifier: Apache-2.0
"""`TradewindRemoteLogIO`: what Airflow knows as the remote log IO."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradewind.logging import config, connection
from tradewind.logging.exceptions import LogSettingsError
from tradewind.logging.shipper import Shipper

if TYPE_CHECKING:
    from collections.abc import Generator

    from tradewind.logging.config import LogSettings
    from tradewind.logging.store import Store

__all__ = ["TradewindRemoteLogIO", "airflow_conf", "check_installed", "reading_store"]

log = logging.getLogger("tradewind.logging")

READING_SECONDS = 300.0

# Not logs of tasks, though they go through the same processors.
_FOREIGN = ("dag_processor/", "scheduler/", ".tradewind/")
_MODULES = {"abfs": "adlfs", "gcs": "gcsfs", "s3": "s3fs"}


def airflow_conf() -> Any:
    """Airflow's configuration: core's where it is loaded, else the Task SDK's."""
    core = sys.modules.get("airflow.configuration")
    if core is not None and hasattr(core, "conf"):
        return core.conf
    from airflow.sdk.configuration import conf

    return conf


def check_installed(url: str, conn_id: str | None = None) -> None:
    """Look, without importing it, whether the storage's package is there, and a connection's provider.

    Args:
        url: `[logging] remote_base_log_folder`.
        conn_id: `[logging] remote_log_conn_id`.

    Raises:
        LogSettingsError: It is missing; the message names the extra.
    """
    from urllib.parse import urlsplit

    from tradewind.logging.store import BACKENDS

    scheme = urlsplit(url).scheme
    backend = BACKENDS.get(scheme)
    if backend is None:
        from fsspec.registry import known_implementations, registry

        if scheme not in known_implementations and scheme not in registry:
            raise LogSettingsError(
                f"[logging] remote_base_log_folder={url!r}: unknown scheme {scheme!r}, expected one of "
                f"{', '.join(sorted(BACKENDS))} or another protocol of fsspec"
            )
    elif backend.extra and find_spec(_MODULES[backend.protocol]) is None:
        raise LogSettingsError(
            f"[logging] remote_base_log_folder={url!r} needs the package {_MODULES[backend.protocol]}: "
            f"pip install 'tradewind-logging[{backend.extra}]'"
        )
    elif conn_id and (provider := connection.PROVIDERS.get(backend.protocol)) and not _is_there(provider):
        raise LogSettingsError(
            f"[logging] remote_log_conn_id={conn_id!r} on {scheme}:// needs {provider}: "
            f"pip install 'tradewind-logging[{backend.extra}]'"
        )


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


class TradewindRemoteLogIO:
    """Records task logs in the storage while the task runs, and reads them.

    Airflow asks for `processors` when it opens a log, calls `upload` when the session is over, and `stream`
    to read. The task's outcome never depends on any of them: what fails is logged and left to the sweeper.

    Args:
        settings: How.
    """

    def __init__(self, settings: LogSettings) -> None:
        self.settings = settings
        self._base = f"{os.path.abspath(settings.local_base)}{os.sep}"  # noqa: PTH100 - must not follow links
        self._connection: str | None = None
        self._last: object = None
        self._known: dict[int, object] = {}
        self.shipper = Shipper(settings, self._open_store)

    @classmethod
    def from_config(cls) -> TradewindRemoteLogIO:
        """Make one from Airflow's configuration.

        Raises:
            LogSettingsError: A setting is malformed, or the storage's package is missing.
        """
        settings = config.from_conf(airflow_conf())
        check_installed(settings.remote_base, settings.conn_id)
        return cls(settings)

    @property
    def processors(self) -> tuple[Any, ...]:
        """The structlog processor that notices each new log file."""
        # Airflow puts the connection into the environment only while it asks.
        self._connection = connection.from_environment(self.settings.conn_id) or self._connection
        return (self._notice,)

    def _notice(self, logger: Any, _method: str, event: Any) -> Any:
        # Runs for every line: one comparison, except where a process writes several logs in turns.
        if logger is not self._last:
            self._last = logger
            if id(logger) not in self._known:
                self._begin(logger)
        return event

    def _begin(self, logger: Any) -> None:
        file = getattr(logger, "_file", None)
        name = getattr(file, "name", None)
        if file is None or not isinstance(name, str):
            # In the task's own process: a socket to the supervisor, and nothing is masked there.
            return
        path = os.path.abspath(name)  # noqa: PTH100 - must not follow links
        relative = path.removeprefix(self._base)
        if relative == path or relative.startswith(_FOREIGN):
            return
        if ".trigger." in relative and not self.settings.include_trigger_logs:
            return
        # A strong reference: the id of a collected logger may be another one's later.
        self._known[id(logger)] = logger
        try:
            self.shipper.begin(relative, Path(path), os.fstat(file.fileno()).st_size)
        except OSError as error:
            log.warning("%s is not recorded while it is written (%s); it stays local", relative, error)

    def upload(self, path: os.PathLike[str] | str, ti: Any = None) -> None:
        """The session is over: see that the storage has all of it.

        Args:
            path: The log's path, relative to `[logging] base_log_folder`.
            ti: The task instance; not needed.
        """
        relative = Path(path).as_posix()
        local = Path(self._base) / relative
        if Path(relative).is_absolute():
            local, relative = Path(relative), relative.removeprefix(self._base)
        trigger = ".trigger." in relative
        if trigger and not self.settings.include_trigger_logs:
            return
        self._connection = connection.from_environment(self.settings.conn_id) or self._connection
        self._known = {k: v for k, v in self._known.items() if getattr(v._file, "name", None) != str(local)}  # type: ignore[attr-defined]
        self._last = None
        try:
            # A triggerer's event loop must not wait for a storage.
            self.shipper.end(relative, local, wait=not trigger)
        except OSError as error:
            log.warning("%s stays in %s for the sweeper: %s", relative, local, error)

    def read(self, relative_path: str, ti: Any = None) -> tuple[list[str], list[str] | None]:
        """Airflow's former way to read: the whole log as text.

        Args:
            relative_path: The log's path.
            ti: The task instance; not needed.
        """
        sources, streams = self.stream(relative_path, ti)
        if not streams:
            return sources, None
        return sources, ["\n".join(line for stream in streams for line in stream)]

    def stream(self, relative_path: str, ti: Any = None) -> tuple[list[str], list[Generator[str, None, None]]]:
        """Read a log line by line, in bounded memory, in one ordered stream.

        Args:
            relative_path: The log's path.
            ti: The task instance; not needed.

        Returns:
            Where the lines come from, for people; at most one stream.
        """
        from tradewind.logging.exceptions import TradewindLoggingError
        from tradewind.logging.reader import RemoteReader

        try:
            return RemoteReader(self._open_store(), self.settings).stream(relative_path)
        except TradewindLoggingError as error:
            return [f"Could not read {self.settings.shown_base}: {error}"], []

    def _open_store(self) -> Store:
        return connection.open_with_connection(self.settings, self._connection)


class _Reading:
    """The storage of this process for reading, kept for a while: a new session costs a look-up and a client."""

    lock = threading.Lock()
    made_from: object = None
    until = 0.0
    store: Store | None = None


def reading_store() -> tuple[Store, LogSettings]:
    """The storage as the api-server and the command line use it, with the connection from Airflow's secrets.

    Kept for `READING_SECONDS`, so that a changed connection is seen without a restart.

    Raises:
        LogSettingsError: A setting is malformed, or the storage's package is missing.
    """
    settings = config.from_conf(airflow_conf())
    check_installed(settings.remote_base, settings.conn_id)
    uri = connection.from_environment(settings.conn_id)
    made_from = (os.getpid(), settings, uri)
    with _Reading.lock:
        if _Reading.store is None or _Reading.made_from != made_from or time.monotonic() > _Reading.until:
            _Reading.store = connection.open_with_connection(settings, uri)
            _Reading.made_from, _Reading.until = made_from, time.monotonic() + READING_SECONDS
        return _Reading.store, settings
