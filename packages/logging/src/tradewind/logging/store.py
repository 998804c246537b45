# SPDX-License-Identifier: Apache-2.0
"""Objects of one storage, through fsspec.

Keys are relative to the base. Nothing is ever appended, and nothing is read in order to be written again.
"""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tradewind.logging.exceptions import LogSettingsError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = [
    "BACKENDS",
    "Backend",
    "Store",
    "Stored",
    "keep_azure_quiet",
    "keep_gcsfs_quiet",
    "open_store",
    "split_azure",
]

UPLOAD_BLOCK_BYTES = 5 << 20
"""One part of a multipart upload, S3's smallest; it takes 10,000 parts, so an object may have 50 GB."""


@dataclass(frozen=True)
class Backend:
    """What one kind of storage can do.

    Args:
        protocol: fsspec's name.
        extra: The extra of this distribution that installs it; empty where fsspec itself has it.
        create_exclusive: Creating an object fails if it exists, without a race.
        prefix_listing: Listing by a prefix inside a folder is one request.
        local: A folder of this machine.
        streaming: A large object can be written in blocks, and is not there before the last one.
    """

    protocol: str
    extra: str = ""
    create_exclusive: bool = True
    prefix_listing: bool = True
    local: bool = False
    streaming: bool = True


BACKENDS: Mapping[str, Backend] = {
    "abfs": Backend("abfs", "azure", prefix_listing=False),
    "abfss": Backend("abfs", "azure", prefix_listing=False),
    "file": Backend("file", prefix_listing=False, local=True),
    "gcs": Backend("gcs", "gcs"),
    "gs": Backend("gcs", "gcs"),
    "local": Backend("file", prefix_listing=False, local=True),
    "memory": Backend("memory", prefix_listing=False, streaming=False),
    "s3": Backend("s3", "s3"),
    "wasb": Backend("abfs", "azure", prefix_listing=False),
    "wasbs": Backend("abfs", "azure", prefix_listing=False),
}
"""By URL scheme. Any other fsspec protocol works without exclusive creation and prefix listing."""


@dataclass(frozen=True)
class Stored:
    """One object, as listed.

    Args:
        key: Relative to the base.
        size: In bytes.
        modified: Seconds since the epoch; 0 where the storage does not tell.
    """

    key: str
    size: int
    modified: float


class Store:
    """The objects below one base.

    Args:
        filesystem: An fsspec file system without a listings cache.
        root: The base as this file system's path.
        backend: What it can do.
    """

    def __init__(self, filesystem: Any, root: str, backend: Backend) -> None:  # fsspec has no type hints
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        self.backend = backend

    def path(self, key: str) -> str:
        """A key as this file system's path."""
        return f"{self.root}/{key}"

    def create(self, key: str, data: bytes) -> bool:
        """Write a new object.

        Returns:
            False when it exists, or when the storage can't tell; nothing is written then.

        Raises:
            StorageError: The storage refused.
        """
        if not self.backend.create_exclusive:
            return False
        try:
            if self.backend.local:
                return self._create_local(Path(self.path(key)), data)
            self.filesystem.pipe_file(self.path(key), data, mode="create")
        except FileExistsError:
            return False
        except NotImplementedError:
            # An S3-compatible server without conditional writes.
            return False
        except Exception as error:
            raise _storage_error("create", key, error) from error
        return True

    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing an old one at once.

        Raises:
            StorageError: The storage refused.
        """
        try:
            if self.backend.local:
                self._replace_local(Path(self.path(key)), iter([data]))
            else:
                self.filesystem.pipe_file(self.path(key), data)
        except Exception as error:
            raise _storage_error("write", key, error) from error

    def put_file(
        self,
        key: str,
        path: Path,
        start: int = 0,
        end: int | None = None,
        *,
        progress: Callable[[int], None] | None = None,
        confirm: Callable[[], None] | None = None,
    ) -> None:
        """Write bytes of a local file as one object, in bounded memory, replacing an old one at once.

        Args:
            key: The object.
            path: The local file.
            start: First byte.
            end: Byte to stop before; the file's end when None.
            progress: Told the number of bytes written so far, after each block.
            confirm: Called when all but the last step is done; the old object stays when it raises.

        Raises:
            StorageError: The storage refused, or `confirm` did; the old object is as it was.
        """
        try:
            if self.backend.local:
                self._replace_local(Path(self.path(key)), _blocks(path, start, end, progress), confirm)
                return
            if not self.backend.streaming:
                data = b"".join(_blocks(path, start, end, progress))
                if confirm is not None:
                    confirm()
                self.filesystem.pipe_file(self.path(key), data)
                return
            upload = self.filesystem.open(self.path(key), "wb", block_size=UPLOAD_BLOCK_BYTES)
            try:
                for block in _blocks(path, start, end, progress):
                    upload.write(block)
                if confirm is not None:
                    confirm()
                upload.close()
            except BaseException:
                # Else the parts of an upload that is not finished stay in the bucket, unseen and paid for.
                with suppress(Exception):
                    upload.discard()
                # close() would publish what was written so far.
                upload.closed = True
                raise
        except StorageError:
            raise
        except Exception as error:
            raise _storage_error("write", key, error) from error

    def list(self, prefix: str) -> dict[str, int]:
        """Sizes of the objects whose key starts with a prefix; one folder, not its subfolders.

        Args:
            prefix: A folder and the beginning of names in it, for example `dag_id=a/.../attempt=1.log`.

        Raises:
            StorageError: The storage refused.
        """
        folder, _, name = prefix.rpartition("/")
        path = f"{self.root}/{folder}" if folder else self.root
        try:
            if self.backend.prefix_listing:
                found = self.filesystem.find(path, prefix=name, detail=True, maxdepth=1)
                entries = list(found.values())
            else:
                entries = self.filesystem.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise _storage_error("list", prefix, error) from error
        sizes = {}
        for entry in entries:
            key = self._key(entry["name"])
            if entry["type"] == "file" and key.startswith(prefix) and "/" not in key[len(prefix) :]:
                sizes[key] = int(entry["size"] or 0)
        return sizes

    def walk(self, folder: str = "") -> Iterator[Stored]:
        """Every object below a folder.

        Raises:
            StorageError: The storage refused.
        """
        try:
            found = self.filesystem.find(f"{self.root}/{folder}".rstrip("/"), detail=True)
        except FileNotFoundError:
            return
        except Exception as error:
            raise _storage_error("list", folder, error) from error
        for name, entry in sorted(found.items()):
            modified = entry.get("LastModified") or entry.get("mtime") or entry.get("updated") or entry.get("created")
            modified = entry.get("last_modified") or modified
            seconds = modified.timestamp() if hasattr(modified, "timestamp") else modified
            yield Stored(self._key(name), int(entry["size"] or 0), float(seconds) if _is_number(seconds) else 0.0)

    def read(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        """Bytes of an object.

        Args:
            key: The object.
            start: First byte.
            size: Number of bytes; up to the end when None.

        Raises:
            FileNotFoundError: There is no such object.
            StorageError: The storage refused.
        """
        try:
            end = None if size is None else start + size
            data: bytes = self.filesystem.cat_file(self.path(key), start=start, end=end)
        except FileNotFoundError:
            raise
        except Exception as error:
            # S3 refuses a range that begins at or behind the end; everywhere else it is empty.
            with suppress(StorageError):
                if self.list(key).get(key, start + 1) <= start:
                    return b""
            raise _storage_error("read", key, error) from error
        return data

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are gone already are no error.

        Raises:
            StorageError: The storage refused.
        """
        for key in keys:
            try:
                self.filesystem.rm_file(self.path(key))
            except FileNotFoundError:
                continue
            except Exception as error:
                raise _storage_error("delete", key, error) from error

    def _key(self, name: str) -> str:
        root = self.root.lstrip("/")
        return name.lstrip("/").removeprefix(f"{root}/")

    @staticmethod
    def _create_local(path: Path, data: bytes) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            new.write_bytes(data)
            # link, unlike rename, refuses to replace: whole or not at all, and one winner.
            os.link(new, path)
        finally:
            new.unlink(missing_ok=True)
        return True

    @staticmethod
    def _replace_local(path: Path, blocks: Iterator[bytes], confirm: Callable[[], None] | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with new.open("wb") as file:
                for block in blocks:
                    file.write(block)
            if confirm is not None:
                confirm()
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _blocks(path: Path, start: int, end: int | None, progress: Callable[[int], None] | None) -> Iterator[bytes]:
    done = 0
    with path.open("rb") as file:
        file.seek(start)
        while True:
            size = UPLOAD_BLOCK_BYTES if end is None else min(UPLOAD_BLOCK_BYTES, end - start - done)
            block = file.read(size) if size > 0 else b""
            if not block:
                return
            yield block
            done += len(block)
            if progress is not None:
                progress(done)


def _storage_error(verb: str, key: str, error: Exception) -> StorageError:
    # The type and not the text: an SDK's message may hold a signed URL.
    code = getattr(error, "errno", None)
    return StorageError(f"can't {verb} {key}: {type(error).__name__}{f' ({os.strerror(code)})' if code else ''}")


def keep_gcsfs_quiet() -> None:
    """Keep gcsfs from probing the bucket's type over gRPC for up to a minute, unless the user asked for it."""
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


def keep_azure_quiet() -> None:
    """Keep Azure's SDK from logging some twenty lines for each request; `AZURE_HTTP_LOGGING_LEVEL` as in Airflow."""
    logger = logging.getLogger("azure.core.pipeline.policies.http_logging_policy")
    try:
        logger.setLevel(os.environ.get("AZURE_HTTP_LOGGING_LEVEL", logging.WARNING))
    except ValueError:
        logger.setLevel(logging.WARNING)


def split_azure(url: str, container: str | None = None) -> tuple[str, str]:
    """An Azure URL as container and path, and the account's host where it names one.

    Args:
        url: `abfs://container/path`, `abfs://container@account.dfs.core.windows.net/path`,
            `wasb://container@account.blob.core.windows.net/path`, or Airflow's own `wasb://path`, which names no
            container.
        container: That of `wasb://path`; Airflow's default when None.

    Example:
        >>> split_azure("abfs://logs/prod")
        ('logs/prod', '')
        >>> split_azure("abfss://logs@acme.dfs.core.windows.net/prod")
        ('logs/prod', 'acme.blob.core.windows.net')
        >>> split_azure("wasb://prod/tasks", "logs")
        ('logs/prod/tasks', '')
    """
    parts = urlsplit(url)
    named, at, host = parts.netloc.rpartition("@")
    if at:
        return f"{named}{parts.path}", host.replace(".dfs.", ".blob.", 1)
    if parts.scheme in {"wasb", "wasbs"}:
        return f"{container or 'airflow-logs'}/{host}{parts.path}".rstrip("/"), ""
    return f"{host}{parts.path}", ""


def open_store(
    url: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    filesystem: Any = None,
    container: str | None = None,
) -> Store:
    """Open a storage by its URL.

    Args:
        url: For example `s3://bucket/logs`.
        storage_options: Arguments of the fsspec file system.
        filesystem: A file system to use instead of one made from the options (a connection's).
        container: The container of a `wasb://` URL that names none; see `split_azure`.

    Raises:
        LogSettingsError: The scheme is unknown, or its package is not installed; the message names the extra.
    """
    parts = urlsplit(url)
    backend = BACKENDS.get(parts.scheme) or Backend(parts.scheme, create_exclusive=False, prefix_listing=False)
    options = dict(storage_options or {})
    if backend.local:
        root = parts.path or f"/{parts.netloc}"
    elif backend.protocol == "abfs":
        keep_azure_quiet()
        root, host = split_azure(url, container)
        if host and not {"account_name", "connection_string"} & options.keys():
            options.update(account_name=host.split(".")[0], account_host=host)
    else:
        root = f"{parts.netloc}{parts.path}" if parts.netloc else parts.path
    if filesystem is None:
        import fsspec

        if backend.protocol == "gcs":
            keep_gcsfs_quiet()
        try:
            filesystem = fsspec.filesystem(backend.protocol, **{"use_listings_cache": False, **options})
        except (ImportError, ValueError) as error:
            hint = f": pip install 'tradewind-logging[{backend.extra}]'" if backend.extra else ""
            known = ", ".join(sorted(BACKENDS))
            raise LogSettingsError(
                f"[logging] remote_base_log_folder={url!r}: no file system for {parts.scheme}:// "
                f"({type(error).__name__}){hint or f'; expected one of {known}, or another protocol of fsspec'}"
            ) from error
    return Store(filesystem, root, backend)
