# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from tradewind.security.exceptions import InvalidValueError, NotFoundError
from tradewind.security.store import sessions, usage
from tradewind.security.store.directory import Directory

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def directory(store: str) -> Iterator[Directory]:
    found = Directory()
    yield found
    found.close()


def soon() -> datetime:
    return datetime.now(timezone.utc) + timedelta(hours=1)


def start(user_id: str = "alice", **values: Any) -> str:
    return sessions.start(user_id, **{"ends_at": soon(), **values})


def test_a_session_remembers_who_logged_in_and_how(store):
    ends_at = soon()
    session_id = start(
        ends_at=ends_at,
        name="Alice",
        ip="192.0.2.1",
        user_agent="Firefox\r\nX-Evil: 1" + "x" * 1000,
        issuer="corp",
        idp_session="sid-1",
        idp_subject="sub-1",
        groups={"corp:b", "corp:a"},
    )
    found = sessions.get(session_id)
    assert (found.user_id, found.kind, found.name, found.ip) == ("alice", "user", "Alice", "192.0.2.1")
    assert (found.issuer, found.idp_session, found.idp_subject) == ("corp", "sid-1", "sub-1")
    assert found.groups == {"corp:a", "corp:b"}
    assert (found.ends_at, found.revoked_at) == (ends_at, None)
    assert found.user_agent.startswith("FirefoxX-Evil")
    assert len(found.user_agent) == 250


def test_ids_of_sessions_can_not_be_guessed(store):
    assert len({start() for _ in range(20)}) == 20
    assert len(start()) == 32


def test_a_revoked_session_is_known_at_once_and_forgotten_when_it_would_have_ended(store, directory):
    session_id, other = start(), start()
    assert sessions.revoke(session_id)
    assert directory.snapshot().revoked_sessions == {session_id}
    assert not sessions.revoke(session_id)
    assert [session.id for session in sessions.list_sessions("alice")] == [other]


def test_starting_a_session_does_not_make_every_process_read_everything_again(store, directory):
    before = directory.refresh().generation
    start()
    assert directory.refresh().generation == before


def test_all_sessions_of_a_user_end_together(store, directory):
    mine = {start(), start()}
    theirs = start("bob")
    assert sessions.revoke_user("alice") == 2
    assert sessions.revoke_user("alice") == 0
    assert directory.snapshot().revoked_sessions == mine
    assert [session.id for session in sessions.list_sessions("bob")] == [theirs]


@pytest.mark.parametrize(
    ("arguments", "ended"),
    [
        ({"idp_session": "s1"}, {"a1"}),
        ({"idp_subject": "alice"}, {"a1", "a2"}),
        ({"idp_session": "s2", "idp_subject": "alice"}, {"a2"}),
        ({"idp_session": "s2", "idp_subject": "bob"}, set()),
        ({"idp_session": ""}, set()),
        ({"idp_session": "\x00"}, set()),
    ],
)
def test_a_provider_ends_the_sessions_that_it_means(store, directory, arguments, ended):
    started = {
        "a1": start(issuer="corp", idp_session="s1", idp_subject="alice"),
        "a2": start(issuer="corp", idp_session="s2", idp_subject="alice"),
        "b1": start("bob", issuer="corp", idp_session="s3", idp_subject="bob"),
        "other": start(issuer="other", idp_session="s1", idp_subject="alice"),
        "local": start(),
    }
    assert sessions.revoke_idp("corp", **arguments) == len(ended)
    assert directory.snapshot().revoked_sessions == {started[name] for name in ended}


def test_a_logout_that_names_nobody_ends_nothing(store):
    start(issuer="corp")
    with pytest.raises(InvalidValueError, match="idp_session"):
        sessions.revoke_idp("corp")
    assert len(sessions.list_sessions("alice")) == 1


def test_purging_deletes_what_has_ended_only(store):
    ended = start(ends_at=datetime.now(timezone.utc) - timedelta(seconds=1))
    going_on = start()
    assert [session.id for session in sessions.list_sessions("alice")] == [going_on]
    assert sessions.purge() == 1
    assert sessions.get(going_on)
    with pytest.raises(NotFoundError):
        sessions.get(ended)


@pytest.mark.parametrize("session_id", ["0" * 32, "", "\x00", "x" * 5000])
def test_an_unknown_session_is_neither_found_nor_revoked(store, session_id):
    with pytest.raises(NotFoundError):
        sessions.get(session_id)
    assert sessions.revoke(session_id) is False


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"user_id": ""}, "user id"),
        ({"kind": "workload"}, "workload"),
        ({"idp_session": "x" * 251}, "idp_session"),
        ({"groups": [f"corp:{n:01000}" for n in range(100)]}, "groups"),
    ],
)
def test_what_can_not_be_stored_is_refused_by_name(store, arguments, named):
    with pytest.raises(InvalidValueError, match=named):
        start(**arguments)
    assert sessions.list_sessions("alice") == []


def test_the_last_request_is_written_to_a_minute(store):
    session_id = start()
    started = sessions.get(session_id).last_seen_at
    usage.session_seen(session_id, started + timedelta(seconds=30))
    usage.flush()
    assert sessions.get(session_id).last_seen_at == started
    usage.session_seen(session_id, started + timedelta(seconds=95))
    usage.flush()
    assert sessions.get(session_id).last_seen_at == started + timedelta(seconds=95)
