# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from store_fixtures import ask_all

from tradewind.security.exceptions import ConflictError, CredentialError, InvalidValueError, NotFoundError
from tradewind.security.passwords import generate_password, hash_password, verify_password
from tradewind.security.store import bindings, sessions, users

PASSWORD = "correct horse battery"  # noqa: S105
WRONG = "not the password"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def refused(user_id: str, password: str = WRONG, now: datetime = NOW) -> str:
    with pytest.raises(CredentialError) as caught:
        users.login(user_id, password, now)
    assert caught.value.subject == user_id
    return caught.value.reason


def test_a_password_is_known_by_a_salted_scrypt_hash_only():
    first, second = hash_password(PASSWORD), hash_password(PASSWORD)
    assert first != second
    assert first.startswith("scrypt$16384$8$1$")
    assert len(first) <= 250
    assert verify_password(PASSWORD, first)
    assert not verify_password(PASSWORD + "!", first)


@pytest.mark.parametrize(("password", "right"), [("elevenchars", "12"), ("x" * 1025, "1024"), ("é" * 513, "1024")])
def test_a_password_of_a_wrong_length_is_refused_without_being_shown(password, right):
    with pytest.raises(InvalidValueError, match=right) as caught:
        hash_password(password)
    assert password not in str(caught.value)


def test_a_password_may_be_typed_composed_or_decomposed():
    assert verify_password("e\u0301te\u0301 con leche", hash_password("\u00e9t\u00e9 con leche"))


@given(st.one_of(st.none(), st.text(max_size=120)))
@example("scrypt$16384$8$1$$")
@example("scrypt$1048576$8$1$AAAA$AAAA")
@example("scrypt$16384$8$1$AAAAAAAAAAAAAAAAAAAAAA==$")
def test_a_corrupt_hash_never_accepts_and_never_raises(stored):
    assert not verify_password("", stored)


@pytest.mark.parametrize("password", ["\ud800" * 12, "\x00" * 12, "x" * 5000, ""])
def test_a_strange_password_is_just_wrong(password):
    assert not verify_password(password, hash_password(PASSWORD))


def test_whoever_can_not_log_in_is_refused_as_slowly_as_after_a_wrong_password(store):
    def seconds(user_id: str) -> float:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            refused(user_id)
            times.append(time.perf_counter() - start)
        return min(times)

    for user_id in ("alice", "disabled", "locked"):
        users.create(user_id, password=PASSWORD)
    users.create("service", kind="service")
    users.disable("disabled")
    for _ in range(5):
        refused("locked")
    known = seconds("alice")
    for user_id in ("nobody", "disabled", "locked", "service"):
        assert seconds(user_id) > known / 3


def test_a_user_who_is_disabled_while_the_password_is_checked_does_not_get_in(store):
    users.create("alice", password=PASSWORD)
    for _ in range(20):
        users.enable("alice")
        with ThreadPoolExecutor(1) as pool:
            attempt = pool.submit(users.login, "alice", PASSWORD)
            while not users.get("alice").failed_logins and not attempt.done():
                pass
            users.disable("alice")
        if attempt.exception():
            break
    assert isinstance(attempt.exception(), CredentialError)
    assert attempt.exception().reason == "changed_meanwhile"


def test_generated_passwords_are_long_and_differ():
    assert len({generate_password() for _ in range(100)}) == 100
    assert len(generate_password()) == 24


def test_a_user_logs_in_with_the_right_password_only(store):
    users.create("alice@acme", name="Alice", password=PASSWORD)
    assert users.get("alice@acme").last_login_at is None
    assert refused("alice@acme") == "wrong_password"
    record = users.login("alice@acme", PASSWORD, NOW)
    assert (record.id, record.name, record.kind, record.last_login_at) == ("alice@acme", "Alice", "user", NOW)
    assert record.failed_logins == 0
    assert "scrypt" not in repr(record)


@pytest.mark.parametrize("user_id", ["nobody", "", "a\x00b", "\ud800", "x" * 251, " alice", "\U0001f600"])
def test_whoever_is_unknown_or_can_not_be_an_id_is_an_unknown_user(store, user_id):
    with pytest.raises(CredentialError) as caught:
        users.login(user_id, PASSWORD)
    assert caught.value.reason == "unknown_user"


def test_a_disabled_user_a_service_and_a_user_without_password_can_not_log_in(store):
    users.create("alice", password=PASSWORD)
    users.create("ci", kind="service")
    users.create("bob@idp")
    users.disable("alice")
    assert refused("alice", PASSWORD) == "disabled"
    assert refused("ci", "") == "no_password"
    assert refused("bob@idp", PASSWORD) == "no_password"
    users.enable("alice")
    assert users.login("alice", PASSWORD).id == "alice"


def test_five_failures_lock_for_a_minute_and_each_further_one_twice_as_long_up_to_an_hour(store):
    users.create("alice", password=PASSWORD)
    for _ in range(4):
        assert refused("alice") == "wrong_password"
    assert users.get("alice").locked_until is None
    now = NOW
    for seconds in (60, 120, 240, 480, 960, 1920, 3600, 3600):
        assert refused("alice", now=now) == "wrong_password"
        assert users.get("alice").locked_until == now + timedelta(seconds=seconds)
        assert refused("alice", PASSWORD, now + timedelta(seconds=seconds - 1)) == "locked"
        now += timedelta(seconds=seconds)
    record = users.login("alice", PASSWORD, now)
    assert (record.failed_logins, record.locked_until) == (0, None)


def test_attempts_while_locked_do_not_lengthen_the_lock(store):
    users.create("alice", password=PASSWORD)
    for _ in range(5):
        refused("alice")
    locked_until = users.get("alice").locked_until
    for _ in range(3):
        assert refused("alice") == "locked"
    assert users.get("alice").locked_until == locked_until


def test_enabling_and_setting_a_password_unlock(store):
    users.create("alice", password=PASSWORD)
    for unlock in (lambda: users.enable("alice"), lambda: users.set_password("alice", PASSWORD)):
        for _ in range(5):
            refused("alice")
        assert refused("alice", PASSWORD) == "locked"
        unlock()
        users.login("alice", PASSWORD, NOW)


def test_setting_a_password_ends_the_other_sessions(store):
    users.create("alice", password=PASSWORD, must_change_password=True)
    assert users.login("alice", PASSWORD).must_change_password
    ends_at = datetime.now(timezone.utc) + timedelta(hours=1)
    kept, other = (sessions.start("alice", ends_at=ends_at) for _ in range(2))
    users.set_password("alice", "another long password", keep_session=kept)
    assert [session.id for session in sessions.list_sessions("alice")] == [kept]
    assert sessions.get(other).revoked_at is not None
    assert refused("alice", PASSWORD) == "wrong_password"
    assert not users.login("alice", "another long password").must_change_password


def test_enabling_does_not_bring_back_the_sessions_of_before(store):
    users.create("alice", password=PASSWORD)
    sessions.start("alice", ends_at=datetime.now(timezone.utc) + timedelta(hours=1))
    users.disable("alice")
    users.enable("alice")
    assert sessions.list_sessions("alice") == []


def test_users_and_services_share_one_namespace_and_are_listed_by_id(store):
    users.create("bob", password=PASSWORD)
    users.create("ci", kind="service")
    users.create("alice")
    with pytest.raises(ConflictError, match="'ci'"):
        users.create("ci")
    assert [user.id for user in users.list_users()] == ["alice", "bob", "ci"]
    assert [user.id for user in users.list_users("service")] == ["ci"]
    assert [user.has_password for user in users.list_users()] == [False, True, False]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"user_id": "a\nb"}, "a\\\\nb"),
        ({"user_id": ""}, "user id"),
        ({"user_id": "ci", "kind": "robot"}, "robot"),
        ({"user_id": "ci", "kind": "service", "password": PASSWORD}, "API tokens"),
        ({"user_id": "alice", "name": "x" * 251}, "name"),
        ({"user_id": "alice", "password": "short"}, "password"),
    ],
)
def test_what_can_not_be_stored_is_refused_by_name(store, arguments, named):
    with pytest.raises(InvalidValueError, match=named):
        users.create(**arguments)
    assert users.list_users() == []


def test_a_service_gets_no_password(store):
    users.create("ci", kind="service")
    with pytest.raises(InvalidValueError, match="'ci'"):
        users.set_password("ci", PASSWORD)


@pytest.mark.parametrize("change", [users.get, users.disable, users.enable])
@pytest.mark.parametrize("user_id", ["nobody", "\x00"])
def test_somebody_unknown_can_not_be_changed(store, change, user_id):
    with pytest.raises(NotFoundError):
        change(user_id)


def test_the_first_admin_is_made_once_owns_the_organization_and_must_change_the_password(store):
    password = users.first_admin("acme")
    assert password
    assert len(password) == 24
    assert users.first_admin("acme") is None
    record = users.login("admin", password)
    assert record.must_change_password
    (made,) = bindings.list_bindings()
    assert made.binding.subject == ("user", "admin")
    assert (made.binding.role, made.binding.scope) == ("org_owner", "organization/acme")


def test_no_admin_is_made_where_there_is_a_user(store):
    users.create("ci", kind="service")
    assert users.first_admin("acme") is None
    assert [user.id for user in users.list_users()] == ["ci"]


def test_of_processes_that_start_at_the_same_time_one_makes_the_admin(workers):
    found = [password for password in ask_all(workers, "first_admin") if password]
    assert len(found) == 1
    assert users.login("admin", found[0]).id == "admin"
    assert len(bindings.list_bindings()) == 1


def test_guesses_of_several_processes_at_once_get_five_tries_together(workers):
    users.create("alice", password=PASSWORD)
    answers = ask_all(workers, "log_in_at_once", user_id="alice", password=WRONG, times=8)
    reasons = [reason for answer in answers for reason in answer]
    assert sorted(reasons) == ["locked"] * 19 + ["wrong_password"] * 5
    assert users.get("alice").failed_logins == 5
