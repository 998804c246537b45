# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
from urllib.parse import urlsplit

import psycopg2


def test_postgres_answers_and_keeps_databases_apart(postgres):
    first, second = postgres.create_database(), postgres.create_database()
    for name in (first, second):
        connection = psycopg2.connect(host=str(postgres.socket_folder), user="postgres", dbname=name)
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE t (i int)")
            cursor.execute("SELECT count(*) FROM t")
            assert cursor.fetchone() == (0,)
        connection.close()
    assert first != second


def test_valkey_answers_on_loopback(valkey):
    parts = urlsplit(valkey)
    assert parts.hostname in {"127.0.0.1", "localhost"}
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(16) == b"+PONG\r\n"
