# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from airflow.utils.session import create_session
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from tradewind.security.audit import AuditLog, purge, tail
from tradewind.security.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHO: dict[str, Any] = {"subject": "alice", "subject_type": "user", "outcome": "denied"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit log"


@pytest.fixture
def folder_log(folder: Path) -> Iterator[AuditLog]:
    found = AuditLog([folder.as_uri()], flush_seconds=60)
    yield found
    found.close()


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.rglob("*.ndjson")) for line in path.read_text().splitlines()]


def test_an_event_is_one_line_with_the_fields_that_are_known(folder_log, folder):
    before = datetime.now(timezone.utc)
    folder_log.record(
        "access.denied",
        subject="alice@acme",
        subject_type="user",
        outcome="denied",
        reason="no_grant",
        method="DELETE",
        path="/api/v2/dags/sales?token=hunter2#x",
        status=403,
        request_id="r1",
        source_ip="192.0.2.1",
        user_agent="curl/8\r\n{}",
        organization="acme",
        deployment="prod",
        cell="dag:DELETE",
    )
    assert folder_log.flush()
    (found,) = events(folder)
    timestamp = found.pop("timestamp")
    assert timestamp.endswith("Z")
    assert before <= datetime.fromisoformat(timestamp.replace("Z", "+00:00")) <= datetime.now(timezone.utc)
    assert found == {
        "event": "access.denied",
        "subjectId": "alice@acme",
        "subjectType": "user",
        "outcome": "denied",
        "reason": "no_grant",
        "method": "DELETE",
        "path": "/api/v2/dags/sales",
        "status": 403,
        "requestId": "r1",
        "sourceIp": "192.0.2.1",
        "userAgent": "curl/8\r\n{}",
        "organizationId": "acme",
        "deploymentId": "prod",
        "details": {"cell": "dag:DELETE"},
    }


def test_secrets_do_not_reach_the_log(folder_log, folder):
    token = "twr_0123456789abcdef_" + "Sup3rS3cret" * 4
    jwt = "eyJhbGciOiJub25lIn0.Sup3rS3cret.Sup3rS3cret"
    folder_log.record(
        "token.created",
        **{**WHO, "subject": f"{token} {jwt}"},
        path=f"/auth/tokens/{token}",
        user_agent=f"curl {jwt}",
        **{"password": "Sup3rS3cret", "token": "Sup3rS3cret", "token_id": "0123456789abcdef"},
        nested={"client_secret": "Sup3rS3cret", "Authorization": "Sup3rS3cret", "url": "http://bob:Sup3rS3cret@host/"},
        many=[token, jwt],
    )
    folder_log.flush()
    (found,) = events(folder)
    assert "Sup3rS3cret" not in json.dumps(found)
    assert found["path"] == "/auth/tokens/twr_0123456789abcdef_***"
    assert "0123456789abcdef" in found["details"].values()
    assert found["details"]["nested"]["url"] == "http://***@host/"


def test_an_objects_place_says_day_host_and_process(folder_log, folder):
    for number in range(3):
        folder_log.record(f"event{number}", **WHO)
        folder_log.flush()
    paths = sorted(folder.rglob("*"))
    names = [str(path.relative_to(folder)) for path in paths if path.is_file()]
    day = f"{datetime.now(timezone.utc):year=%Y/month=%m/day=%d}/"
    assert len(names) == 3
    assert all(name.startswith(day) and f"-{os.getpid()}-" in name for name in names)
    assert [event["event"] for event in events(folder)] == ["event0", "event1", "event2"]


def test_processes_of_one_host_and_id_replace_nothing_of_each_other(folder):
    for name in ("before the restart", "after it"):
        log = AuditLog([folder.as_uri()], flush_seconds=60)
        log.record(name, **WHO)
        log.close()
    assert {event["event"] for event in events(folder)} == {"before the restart", "after it"}


def test_any_storage_of_fsspec_can_be_the_sink():
    import fsspec

    log = AuditLog(["memory://audit/log"], flush_seconds=60)
    log.record("login", **WHO)
    log.close()
    storage = fsspec.filesystem("memory")
    (name,) = storage.glob("/audit/log/year=*/month=*/day=*/*.ndjson")
    assert json.loads(storage.cat_file(name))["event"] == "login"
    storage.rm("/audit", recursive=True)


def test_what_came_together_is_written_by_the_thread(folder):
    log = AuditLog([folder.as_uri()], flush_seconds=0.1)
    for _ in range(5):
        log.record("login", **WHO)
    deadline = time.monotonic() + 10
    while len(events(folder)) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(events(folder)) == 5
    log.close()


def test_stdout_gets_one_line_each(capsys):
    log = AuditLog(["stdout:"], flush_seconds=60)
    log.record("login", **WHO)
    log.record("logout", **WHO)
    log.close()
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()] == ["login", "logout"]


def test_the_table_is_read_newest_first_and_by_field(store):
    log = AuditLog(["table:"], flush_seconds=60)
    log.record("login", subject="alice", subject_type="user", outcome="success")
    log.record("access.denied", subject="bob", subject_type="user", outcome="denied")
    log.record("access.denied", subject="alice", subject_type="user", outcome="denied")
    log.record("login", subject=None, subject_type="anonymous", outcome="failure")
    log.close()
    assert [(event["event"], event.get("subjectId")) for event in tail()] == [
        ("login", None),
        ("access.denied", "alice"),
        ("access.denied", "bob"),
        ("login", "alice"),
    ]
    assert len(tail(2)) == 2
    assert [event["outcome"] for event in tail(subject="alice")] == ["denied", "success"]
    assert [event["subjectId"] for event in tail(event="access.denied", outcome="denied")] == ["alice", "bob"]
    assert tail(subject="\x00") == []


def test_purging_deletes_what_is_older(store):
    log = AuditLog(["table:"], flush_seconds=60)
    for name in ("old", "new"):
        log.record(name, **WHO)
    log.close()
    with create_session(scoped=False) as session:
        at = datetime.now(timezone.utc) - timedelta(days=91)
        session.execute(text("UPDATE tw_audit SET at = :at WHERE event = 'old'"), {"at": str(at).partition("+")[0]})
    assert purge(90) == 1
    assert [event["event"] for event in tail()] == ["new"]


@pytest.mark.parametrize("subject", ["a\x00b", "\ud800", "x" * 5000, "\U0001f600"])
def test_a_strange_subject_does_not_hold_up_the_table(postgres_store, subject):
    log = AuditLog(["table:"], flush_seconds=60)
    log.record("login", **{**WHO, "subject": subject})
    assert log.flush()
    assert len(tail()) == 1
    log.close()


def test_a_sink_that_fails_keeps_its_events_and_the_others_go_on(tmp_path, store, caplog):
    caplog.set_level("INFO")
    broken = tmp_path / "broken"
    broken.write_text("a file where a folder should be")
    log = AuditLog([broken.as_uri(), "table:"], flush_seconds=60)
    log.record("first", **WHO)
    assert not log.flush()
    log.record("second", **WHO)
    assert not log.flush()
    assert len(tail()) == 2
    assert caplog.text.count("can't be written to file:") == 1
    broken.unlink()
    assert log.flush()
    assert [event["event"] for event in events(broken)] == ["first", "second"]
    assert "can be written to file: again" in caplog.text
    log.close()


def test_more_than_can_be_kept_is_counted_and_the_oldest_stay(folder, caplog):
    log = AuditLog([folder.as_uri()], flush_seconds=60, kept_events=10)
    for number in range(25):
        log.record(f"event{number}", **WHO)
    assert log.flush()
    assert [event["event"] for event in events(folder)] == [f"event{number}" for number in range(10)]
    assert "15 audit events for file: were lost" in caplog.text
    log.close()


def test_a_sink_that_hangs_does_not_make_a_request_wait():
    # Nobody reads the process's standard output, so it blocks once the pipe's 64 KiB are full.
    program = """
import sys, time
from tradewind.security.audit import AuditLog
log = AuditLog(["stdout:"], flush_seconds=0.01)
slowest = 0.0
for number in range(3000):
    start = time.perf_counter()
    log.record("login", subject="alice", subject_type="user", outcome="denied", padding="x" * 500)
    slowest = max(slowest, time.perf_counter() - start)
    if number % 500 == 0:
        time.sleep(0.05)
print(slowest, file=sys.stderr, flush=True)
import os
os._exit(0)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.wait(60)
    with process.stdout, process.stderr:
        assert float(process.stderr.read()) < 1.0


def test_events_are_written_when_the_process_ends(tmp_path):
    program = f"""
from tradewind.security.audit import AuditLog
log = AuditLog([{tmp_path.as_uri()!r}], flush_seconds=600)
log.record("login", subject="alice", subject_type="user", outcome="success")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert [event["event"] for event in events(tmp_path)] == ["login"]


def test_a_forked_child_writes_its_own_events_only(folder, folder_log):
    folder_log.record("parent", **WHO)
    child = os.fork()
    if child == 0:
        try:
            folder_log.record("child", **WHO)
            folder_log.flush()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    folder_log.flush()
    assert sorted(event["event"] for event in events(folder)) == ["child", "parent"]
    assert len(list(folder.rglob("*.ndjson"))) == 2


def test_threads_lose_nothing(folder, folder_log):
    def record(name: str) -> None:
        for number in range(200):
            folder_log.record(f"{name}.{number}", **WHO)
            if number % 50 == 0:
                folder_log.flush()

    threads = [threading.Thread(target=record, args=(f"t{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    folder_log.flush()
    assert len({event["event"] for event in events(folder)}) == len(events(folder)) == 800


def test_what_can_not_be_recorded_does_not_reach_the_request(folder_log, folder, caplog):
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("no")

    folder_log.record("login", **WHO, thing=Hostile())
    assert "could not be taken" in caplog.text
    folder_log.record("login", **WHO, much={str(number): "x" * 1000 for number in range(100)})
    folder_log.flush()
    (found,) = events(folder)
    assert "omitted" in found["details"]


@given(st.text(max_size=50), st.dictionaries(st.text(max_size=10), st.text(max_size=50), max_size=3), st.text())
def test_any_text_gives_one_line_of_json(tmp_path_factory, subject, details, path):
    folder = tmp_path_factory.mktemp("any")
    log = AuditLog([folder.as_uri()], flush_seconds=600)
    log.record("login", **{**WHO, "subject": subject}, path=path, details=details)
    log.close()
    (found,) = events(folder)
    assert "?" not in found.get("path", "")


@pytest.mark.parametrize("url", ["", "stdout", "table", "table:x", "file:", "s3:", "s3://", "/var/log"])
def test_a_sink_that_can_not_be_is_refused(url):
    with pytest.raises(SettingsError, match="stdout:"):
        AuditLog([url])


def test_neither_the_audit_log_nor_passwords_import_airflow():
    program = """
import sys
import tradewind.security.audit, tradewind.security.passwords, tradewind.security.store
assert not [name for name in sys.modules if name.split(".")[0] in ("airflow", "sqlalchemy", "pydantic", "fsspec")]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
