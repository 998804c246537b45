# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import re
import zlib
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from airflow.utils.session import create_session
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from store_fixtures import counted_queries

from tradewind.security.exceptions import ConflictError, CredentialError, InvalidValueError, NotFoundError
from tradewind.security.store import tokens, usage, users
from tradewind.security.store.directory import Directory

if TYPE_CHECKING:
    from collections.abc import Iterator

URL_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
FOREIGN_TOKENS = st.one_of(
    st.text(max_size=300),
    st.from_regex(r"twr_[0-9a-f]{16}_[A-Za-z0-9_-]{43}_[0-9a-f]{8}", fullmatch=True),
    st.from_regex(r"twr_.{0,80}_.{0,200}_[0-9a-f]{8}\n?"),
)


@pytest.fixture
def directory(store: str) -> Iterator[Directory]:
    found = Directory()
    yield found
    found.close()


def reason(token: str, directory: Directory, now: datetime | None = None) -> str:
    with pytest.raises(CredentialError) as caught:
        tokens.verify(token, directory, now)
    return caught.value.reason


def written(token_id: str, secret: str) -> str:
    body = f"twr_{token_id}_{secret}"
    return f"{body}_{zlib.crc32(body.encode()):08x}"


@contextmanager
def changed_row(statement: str, **values: object) -> Iterator[None]:
    with create_session(scoped=False) as session:
        session.execute(text(statement), values)
        session.execute(text("UPDATE tw_generation SET value = value + 1"))
    yield


@given(st.integers(0, 2**64 - 1), st.text(URL_SAFE, min_size=43, max_size=43))
def test_the_parts_of_a_token_are_read_back_also_with_underscores_in_the_secret(number, secret):
    parsed = tokens.parse(written(f"{number:016x}", secret))
    assert (parsed.id, parsed.secret) == (f"{number:016x}", secret)
    assert secret not in repr(parsed)


@given(FOREIGN_TOKENS)
def test_anything_else_is_malformed_and_raises_nothing_else(text):
    with pytest.raises(CredentialError) as caught:
        tokens.parse(text)
    assert caught.value.reason == "malformed"
    assert text not in str(caught.value) or text in "malformed"


@given(st.data())
def test_a_token_with_one_wrong_character_is_malformed(data):
    token = written("0123456789abcdef", "s" * 43)
    position = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(URL_SAFE).filter(lambda c: c != token[position]))
    with pytest.raises(CredentialError):
        tokens.parse(token[:position] + other + token[position + 1 :])


def test_a_token_is_shown_once_and_kept_as_a_hash(store, directory):
    record, token = tokens.create("alice", "laptop", expires_in=3600)
    assert re.fullmatch(r"twr_[0-9a-f]{16}_[A-Za-z0-9_-]{43}_[0-9a-f]{8}", token)
    secret = tokens.parse(token).secret
    assert record.secret_hash == hashlib.sha256(secret.encode()).hexdigest()
    with create_session(scoped=False) as session:
        row = session.execute(text("SELECT * FROM tw_api_token")).one()
    assert secret not in str(row)
    assert record.secret_hash not in repr(record)
    found = tokens.verify(token, directory)
    assert (found.id, found.owner, found.name, found.scopes) == (record.id, "alice", "laptop", None)
    assert (record.expires_at - record.created_at) == timedelta(hours=1)


def test_scopes_are_kept_as_they_were_given(store, directory):
    _, token = tokens.create("alice", "ci", ["dag.run:POST", "connection:*"], expires_in=60)
    assert tokens.verify(token, directory).scopes == {"dag.run:POST", "connection:*"}


def test_a_token_knows_what_its_owner_is_and_which_groups_they_had(store, directory):
    users.create("ci", kind="service")
    tokens.create("ci", "deploy", expires_in=60)
    old, _ = tokens.create("bob@idp", "laptop", expires_in=60, groups={"corp:sre", "corp:data"})
    _, token = tokens.rotate(old.id)
    found = tokens.verify(token, directory)
    assert (found.owner_kind, found.groups) == ("user", {"corp:sre", "corp:data"})
    (service,) = tokens.list_tokens("ci")
    assert (service.owner_kind, service.groups) == ("service", set())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scopes": ["dag.runs:POST"]}, "dag.runs:POST.*did you mean"),
        ({"scopes": []}, "scopes"),
        ({"scopes": "dag:GET"}, "list"),
        ({"expires_in": 59}, "59"),
        ({"expires_in": 366 * 86400 + 1}, "31622400"),
        ({"expires_in": True}, "True"),
        ({"groups": [f"corp:{n:01000}" for n in range(100)]}, "groups"),
        ({"owner": ""}, "owner"),
        ({"name": "a\nb"}, "name"),
    ],
)
def test_what_can_not_be_in_a_token_is_refused_by_name(store, changes, named):
    arguments = {"owner": "alice", "name": "laptop", "expires_in": 60, **changes}
    with pytest.raises(InvalidValueError, match=named):
        tokens.create(**arguments)
    assert tokens.list_tokens() == []


def test_only_the_right_secret_is_accepted(store, directory):
    record, token = tokens.create("alice", "laptop", expires_in=60)
    assert reason(written(record.id, "A" * 43), directory) == "wrong_secret"
    assert reason(written("0" * 16, tokens.parse(token).secret), directory) == "unknown"
    assert reason(token + "0", directory) == "malformed"
    assert tokens.verify(token, directory).id == record.id


def test_a_token_is_accepted_until_the_second_it_expires(store, directory):
    _, token = tokens.create("alice", "laptop", expires_in=60, now=NOW)
    tokens.verify(token, directory, NOW + timedelta(seconds=59))
    assert reason(token, directory, NOW + timedelta(seconds=60)) == "expired"


def test_a_revoked_token_is_refused_at_once_in_this_process(store, directory):
    record, token = tokens.create("alice", "laptop", expires_in=60)
    tokens.verify(token, directory)
    tokens.revoke(record.id)
    tokens.revoke(record.id)
    assert reason(token, directory) == "revoked"


def test_the_tokens_of_a_disabled_owner_are_refused(store, directory):
    users.create("ci", kind="service")
    _, token = tokens.create("ci", "deploy", expires_in=60)
    tokens.verify(token, directory)
    users.disable("ci")
    assert reason(token, directory) == "disabled"
    users.enable("ci")
    tokens.verify(token, directory)


def test_a_rotated_token_has_the_same_owner_name_scopes_and_lifetime_and_ends_the_old_one(store, directory):
    old, old_token = tokens.create("alice", "ci", ["dag:GET"], expires_in=7200, now=NOW)
    later = NOW + timedelta(hours=1)
    new, new_token = tokens.rotate(old.id, now=later)
    assert reason(old_token, directory, later) == "expired"
    found = tokens.verify(new_token, directory, later)
    assert (found.owner, found.name, found.scopes, found.rotated_from) == ("alice", "ci", {"dag:GET"}, old.id)
    assert found.expires_at == later + timedelta(hours=2)
    assert new.id != old.id


def test_during_the_overlap_both_are_accepted_but_none_longer_than_before(store, directory):
    old, old_token = tokens.create("alice", "ci", expires_in=7200, now=NOW)
    _, new_token = tokens.rotate(old.id, overlap=600, now=NOW)
    tokens.verify(old_token, directory, NOW + timedelta(seconds=599))
    tokens.verify(new_token, directory, NOW + timedelta(seconds=599))
    assert reason(old_token, directory, NOW + timedelta(seconds=600)) == "expired"
    short, short_token = tokens.create("alice", "ci", expires_in=60, now=NOW)
    tokens.rotate(short.id, overlap=86400, now=NOW)
    assert reason(short_token, directory, NOW + timedelta(seconds=60)) == "expired"


def test_what_is_not_accepted_any_more_can_not_be_rotated(store):
    revoked, _ = tokens.create("alice", "a", expires_in=60)
    tokens.revoke(revoked.id)
    expired, _ = tokens.create("alice", "b", expires_in=60, now=NOW)
    rotated, _ = tokens.create("alice", "c", expires_in=60)
    tokens.rotate(rotated.id, overlap=30)
    for record in (revoked, expired, rotated):
        with pytest.raises(ConflictError, match=record.id):
            tokens.rotate(record.id)
    for overlap in (-1, 7 * 86400 + 1, True):
        with pytest.raises(InvalidValueError, match=str(overlap)):
            tokens.rotate(rotated.id, overlap=overlap)


@pytest.mark.parametrize("token_id", ["0" * 16, "nothing", "\x00", ""])
@pytest.mark.parametrize("change", [tokens.revoke, tokens.rotate])
def test_an_unknown_token_can_not_be_changed(store, change, token_id):
    with pytest.raises(NotFoundError):
        change(token_id)


def test_tokens_are_listed_newest_first_by_owner(store):
    for offset, owner in enumerate(["alice", "bob", "alice"]):
        tokens.create(owner, f"t{offset}", expires_in=60, now=NOW + timedelta(seconds=offset))
    assert [token.name for token in tokens.list_tokens()] == ["t2", "t1", "t0"]
    assert [token.name for token in tokens.list_tokens("alice")] == ["t2", "t0"]
    assert tokens.list_tokens("\x00") == []


@pytest.mark.parametrize("scopes", ["null", '"dag:GET"', "{}", "[1]", "", '["dag:GET'])
def test_a_token_with_corrupt_scopes_is_refused_and_not_unlimited(store, directory, scopes, caplog):
    record, token = tokens.create("alice", "ci", ["dag:GET"], expires_in=60)
    with changed_row("UPDATE tw_api_token SET scopes = :scopes", scopes=scopes):
        directory.refresh()
        assert reason(token, directory) == "unknown"
    assert record.id in caplog.text
    assert tokens.list_tokens() == []


def test_a_token_costs_one_query_when_it_is_new_and_none_after(store, directory):
    _, token = tokens.create("alice", "ci", expires_in=60)
    directory.snapshot()
    with counted_queries() as queries:
        assert not directory.knows_token(tokens.parse(token).id)
        tokens.verify(token, directory)
        assert len(queries) == 1
        assert directory.knows_token(tokens.parse(token).id)
        for _ in range(20):
            tokens.verify(token, directory)
        assert len(queries) == 1


def test_the_last_use_is_written_at_most_once_a_minute_and_never_by_the_request(store, directory):
    _, token = tokens.create("alice", "ci", expires_in=3600, now=NOW)

    def used_at(seconds: int) -> datetime | None:
        tokens.verify(token, directory, NOW + timedelta(seconds=seconds))
        before = tokens.list_tokens()[0].last_used_at
        with counted_queries() as queries:
            usage.flush()
        after = tokens.list_tokens()[0].last_used_at
        assert (before != after) == bool(queries)
        return after

    assert tokens.list_tokens()[0].last_used_at is None
    assert used_at(0) == NOW
    assert used_at(30) == NOW
    assert used_at(59) == NOW
    assert used_at(61) == NOW + timedelta(seconds=61)


def test_a_token_revoked_here_is_refused_by_other_processes_within_five_seconds(workers):
    record, token = tokens.create("alice", "ci", expires_in=3600)
    assert [worker.ask("verify", token=token) for worker in workers] == ["accepted"] * 3
    for worker in workers:
        worker.send("seconds_until_refused", token=token, limit=10)
    tokens.revoke(record.id)
    for worker in workers:
        found, seconds = worker.receive()
        assert found == "revoked"
        assert seconds <= 5


def test_tokens_get_the_groups_of_a_new_login(store: str) -> None:
    directory = Directory()
    _, text = tokens.create("ann", "laptop", expires_in=600, groups=["corp:sre", "corp:dev"])
    assert tokens.verify(text, directory).groups == {"corp:sre", "corp:dev"}
    tokens.update_groups("ann", ["corp:dev"])
    assert tokens.verify(text, directory).groups == {"corp:dev"}
    tokens.update_groups("bob", [])
    assert tokens.verify(text, directory).groups == {"corp:dev"}
    directory.close()
