# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2
import pytest
from airflow.utils.session import create_session
from sqlalchemy import make_url, text
from store_fixtures import counted_queries

from tradewind.security.exceptions import StoreUnavailableError
from tradewind.security.store import bindings, teams, tokens, users
from tradewind.security.store.directory import Directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.services import Postgres

ROLE = {"role": "ws_author", "scope": "workspace/data"}


@pytest.fixture
def directory(store: str) -> Iterator[Directory]:
    found = Directory(poll_seconds=0.1)
    yield found
    found.close()


def execute(statement: str, **values: object) -> None:
    """Change the database behind the back of this process's directories."""
    with create_session(scoped=False) as session:
        session.execute(text(statement), values)
        session.execute(text("UPDATE tw_generation SET value = value + 1"))


def wait_until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_empty_tables_are_an_empty_snapshot(directory):
    snapshot = directory.snapshot()
    assert (snapshot.generation, snapshot.bindings, snapshot.binding_ids) == (0, (), ())
    assert (dict(snapshot.teams), snapshot.disabled, snapshot.revoked_sessions) == ({}, frozenset(), frozenset())


def test_all_that_is_written_is_in_the_next_snapshot(directory):
    directory.snapshot()
    first = bindings.create({"user": "alice", **ROLE}, created_by="admin")
    second = bindings.create({"team": "sales", **ROLE, "dags": {"ids": ["sales_*"]}}, created_by="admin")
    for team in ("sales", "support"):
        teams.create(team)
        teams.add_member(team, "alice")
    teams.add_member("sales", "bob")
    users.create("ci", kind="service")
    users.disable("ci")
    snapshot = directory.snapshot()
    assert snapshot.bindings == (first.binding, second.binding)
    assert snapshot.binding_ids == (first.id, second.id)
    assert snapshot.teams == {"alice": {"sales", "support"}, "bob": {"sales"}}
    assert snapshot.disabled == {"ci"}
    bindings.delete(first.id)
    assert directory.snapshot().binding_ids == (second.id,)
    assert directory.snapshot().generation > snapshot.generation


def test_a_snapshot_costs_no_query_while_the_thread_looks(directory):
    directory.snapshot()
    directory.close()
    with counted_queries() as queries:
        for _ in range(1000):
            directory.snapshot()
        assert queries == []


def test_the_thread_asks_one_query_while_nothing_changes(directory):
    bindings.create({"user": "alice", **ROLE}, created_by="admin")
    directory.snapshot()
    with counted_queries() as queries:
        wait_until(lambda: len(queries) >= 3)
    assert {query.split("FROM")[1].split()[0] for query in queries} == {"tw_generation"}


def test_the_thread_sees_what_others_changed(directory):
    binding = bindings.create({"user": "alice", **ROLE}, created_by="admin")
    directory.snapshot()
    execute("DELETE FROM tw_binding WHERE id = :id", id=binding.id)
    wait_until(lambda: directory.snapshot().bindings == ())


def test_without_a_thread_whoever_asks_too_late_looks(store):
    directory = Directory(stale_seconds=0.2)
    directory.snapshot()
    directory.close()
    execute("INSERT INTO tw_generation (id, value) VALUES (2, 0)")
    with create_session(scoped=False) as session:
        session.execute(text("INSERT INTO tw_generation (id, value) VALUES (1, 9)"))
    assert directory.snapshot().generation == 0
    time.sleep(0.25)
    assert directory.snapshot().generation == 9


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("selectors", "null"),
        ("selectors", ""),
        ("selectors", '{"dags": null}'),
        ("selectors", '{"dags": {}}'),
        ("selectors", '{"dags": {"ids": ["a"'),
        ("selectors", '{"dag": {"ids": ["a"]}}'),
        ("selectors", '{"role": "org_owner"}'),
        ("selectors", '[["dags", {"ids": ["a"]}]]'),
        ("scope", "workspace/"),
        ("subject_kind", "robot"),
        ("subject_kind", "role"),
        ("subject", ""),
        ("role", ""),
    ],
)
def test_a_corrupt_binding_grants_nothing_and_is_reported_once(directory, caplog, column, value):
    narrow = bindings.create({"user": "bob", **ROLE, "dags": {"ids": ["a"]}}, created_by="admin")
    whole = bindings.create({"user": "alice", **ROLE}, created_by="admin")
    execute(f"UPDATE tw_binding SET {column} = :value WHERE id = :id", value=value, id=narrow.id)  # noqa: S608  # of our own list
    assert directory.refresh().binding_ids == (whole.id,)
    execute("UPDATE tw_binding SET created_by = 'x'")
    assert directory.refresh().binding_ids == (whole.id,)
    assert [record.levelname for record in caplog.records if f"Binding {narrow.id} is corrupt" in record.message] == [
        "ERROR"
    ]
    assert [record.id for record in bindings.list_bindings()] == [whole.id]
    bindings.delete(narrow.id)


def test_a_transaction_that_fails_changes_neither_the_generation_nor_the_rest(directory):
    teams.create("sales")
    before = directory.snapshot()
    with pytest.raises(Exception, match="not in team"):
        teams.remove_member("sales", "nobody")
    assert directory.refresh() == before


def test_without_our_tables_nobody_gets_an_answer(directory):
    directory.snapshot()
    directory.close()
    with create_session(scoped=False) as session:
        session.execute(text("DROP TABLE tw_generation"))
    with pytest.raises(StoreUnavailableError, match="airflow db migrate"):
        directory.refresh()
    with pytest.raises(StoreUnavailableError):
        teams.create("sales")


def test_a_forked_child_goes_on_with_a_thread_of_its_own(store):
    directory = Directory(poll_seconds=0.05, stale_seconds=0.5)
    directory.snapshot()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            deadline = time.monotonic() + 20
            while "alice" not in directory.snapshot().teams and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.6)
            directory.snapshot()
            polling = any(thread.name.endswith("directory") and thread.is_alive() for thread in threading.enumerate())
            found = b"seen" if "alice" in directory.snapshot().teams else b"not seen"
            os.write(writer, found + (b", polling" if polling else b", not polling"))
        finally:
            os._exit(0)
    os.close(writer)
    teams.create("sales")
    teams.add_member("sales", "alice")
    with os.fdopen(reader, "rb") as answer:
        assert answer.read() == b"seen, polling"
    os.waitpid(child, 0)
    directory.close()


def test_a_corrupt_token_and_an_unknown_one_are_the_same(directory):
    assert directory.token("0" * 16) is None
    record, _ = tokens.create("alice", "ci", ["dag:GET"], expires_in=60)
    execute("UPDATE tw_api_token SET scopes = 'null'")
    assert directory.token(record.id) is None


@contextmanager
def out_of_reach(server: Postgres, url: str) -> Iterator[None]:
    """Postgres throws everybody out of the database and lets nobody in."""
    database = make_url(url).database
    connection = psycopg2.connect(host=str(server.socket_folder), user="postgres", dbname="postgres")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,))
        try:
            yield
        finally:
            cursor.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
            connection.close()


def test_an_outage_refuses_everybody_after_a_while_and_ends_by_itself(postgres_store, security_postgres, caplog):
    caplog.set_level("INFO")
    directory = Directory(poll_seconds=0.1, stale_seconds=0.5)
    before = directory.snapshot()
    with out_of_reach(security_postgres, postgres_store):
        assert directory.snapshot() == before
        time.sleep(1)
        with pytest.raises(StoreUnavailableError) as caught:
            directory.snapshot()
        assert postgres_store not in str(caught.value)
        with pytest.raises(StoreUnavailableError):
            directory.token("0" * 16)
    wait_until(lambda: answers(directory))
    assert directory.snapshot() == before
    directory.close()
    # Another test's directory may look too, from its own thread.
    reports = Counter((record.thread, record.levelname) for record in caplog.records if "can be read" in record.message)
    refusals = Counter(record.thread for record in caplog.records if "Requests are refused" in record.message)
    assert set(refusals.values()) == {1}
    assert {level for _, level in reports} == {"INFO"}


def test_during_an_outage_callers_do_not_queue_for_the_database(postgres_store, security_postgres):
    directory = Directory(poll_seconds=60, stale_seconds=0.1)
    directory.snapshot()
    time.sleep(0.2)
    refused = []

    def ask() -> None:
        try:
            directory.snapshot()
        except StoreUnavailableError:
            refused.append(1)

    with out_of_reach(security_postgres, postgres_store), counted_attempts() as attempts:
        callers = [threading.Thread(target=ask) for _ in range(20)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert len(refused) == 20
    assert len(attempts) <= 2
    directory.close()


def test_a_database_that_hangs_does_not_hang_whoever_asks(postgres_store):
    directory = Directory(poll_seconds=0.1, stale_seconds=0.3)
    before = directory.snapshot()
    with create_session(scoped=False) as session:
        session.execute(text("LOCK TABLE tw_generation IN ACCESS EXCLUSIVE MODE"))
        time.sleep(0.6)
        for patience in (2, 0.2, 0.2):
            start = time.monotonic()
            with pytest.raises(StoreUnavailableError):
                directory.snapshot()
            assert time.monotonic() - start < patience
    wait_until(lambda: answers(directory))
    assert directory.snapshot() == before
    directory.close()


def test_a_child_forked_while_the_thread_asks_gets_answers(postgres_store):
    directory = Directory(poll_seconds=0.1, stale_seconds=0.3)
    directory.snapshot()
    reader, writer = os.pipe()
    with create_session(scoped=False) as session:
        session.execute(text("LOCK TABLE tw_generation IN ACCESS EXCLUSIVE MODE"))
        time.sleep(0.5)
        child = os.fork()
        if child == 0:
            try:
                os.close(reader)
                deadline = time.monotonic() + 15
                while not answers(directory) and time.monotonic() < deadline:
                    time.sleep(0.05)
                time.sleep(0.5)
                os.write(writer, b"answers" if answers(directory) else b"refuses")
            finally:
                os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        assert answer.read() == b"answers"
    os.waitpid(child, 0)
    directory.close()


def answers(directory: Directory) -> bool:
    try:
        directory.snapshot()
    except StoreUnavailableError:
        return False
    return True


@contextmanager
def counted_attempts() -> Iterator[list[int]]:
    """Connections that are tried meanwhile."""
    from airflow import settings
    from sqlalchemy import event

    attempts: list[int] = []

    def note(*_: object) -> None:
        attempts.append(1)

    engine = settings.get_engine()
    event.listen(engine, "do_connect", note)
    try:
        yield attempts
    finally:
        event.remove(engine, "do_connect", note)


def test_a_change_in_one_process_is_seen_by_the_others_within_five_seconds(workers):
    teams.create("sales")
    assert len({worker.ask("generation") for worker in workers}) == 1
    watchers, changer = workers[:2], workers[2]
    for worker in watchers:
        worker.send("seconds_until_team", user_id="alice", team="sales", limit=10)
    changer.ask("add_member", team="sales", user_id="alice")
    for worker in watchers:
        assert worker.receive() <= 5


def test_changes_of_several_processes_at_once_are_all_kept(workers):
    for team in ("a", "b", "c"):
        teams.create(team)
    for number in range(10):
        for worker, team in zip(workers, ("a", "b", "c"), strict=True):
            worker.send("add_member", team=team, user_id=f"user{number}")
        for worker in workers:
            worker.receive()
    directory = Directory()
    assert directory.snapshot().teams == {f"user{number}": {"a", "b", "c"} for number in range(10)}
    assert directory.snapshot().generation == 33
    directory.close()
