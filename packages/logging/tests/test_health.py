# SPDX-License-Identifier: Apache-2.0
"""Health as a person, a probe or the UI asks for it: real journals, real locks, real storages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest

from tradewind.logging import health, spool
from tradewind.logging.config import LogSettings
from tradewind.logging.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

LOG = "dag_id=a/attempt=1.log"

HOLD = """
import sys, time
from pathlib import Path
from tradewind.logging import spool
journal = spool.open_journal(Path(sys.argv[1]), sys.argv[2], sys.argv[2], 10)
journal.note(sent=30)
print(flush=True)
time.sleep(600)
"""


@pytest.fixture
def settings(tmp_path) -> LogSettings:
    local = tmp_path / "local"
    (local / LOG).parent.mkdir(parents=True)
    (local / LOG).write_bytes(b"x" * 100)
    return LogSettings(remote_base=f"file://{tmp_path}/remote", local_base=local)


@pytest.fixture
def writer(settings):
    command = [sys.executable, "-c", HOLD, str(settings.local_base), LOG]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def asked(settings: LogSettings, *, write: bool = False) -> health.Health:
    return health.check(open_store(settings.remote_base), settings, write=write)


def test_all_is_well_where_nothing_is_recorded(settings):
    found = asked(settings)
    assert (found.status, found.spooled) == ("healthy", health.Spooled())
    assert found.latency_seconds is not None
    assert found.disk_free_bytes


def test_a_living_sessions_unsent_bytes_are_counted_and_its_lock_stays(settings, writer):
    found = asked(settings)
    assert found.status == "healthy"
    assert (found.spooled.sessions, found.spooled.orphans, found.spooled.bytes_at_risk) == (1, 0, 60)
    (journal,) = (settings.local_base / spool.FOLDER).glob("*.jsonl")
    assert spool.take_over(journal) is None


def test_a_line_that_is_late_is_told(settings, writer):
    os.utime(settings.local_base / LOG, (1, 1))
    found = asked(settings)
    assert found.status == "degraded"
    assert found.spooled.oldest_seconds > health.LATE_SECONDS
    assert "not stored yet" in found.message


def test_a_killed_writers_session_waits_for_the_sweeper(settings, writer):
    writer.kill()
    writer.wait()
    found = asked(settings)
    assert (found.status, found.spooled.orphans, found.spooled.bytes_at_risk) == ("degraded", 1, 60)
    assert "airflow tradewind-logs sweep" in found.message


def test_two_sessions_of_one_file_count_each_byte_once(settings):
    first = spool.open_journal(settings.local_base, LOG, LOG, 0)
    second = spool.open_journal(settings.local_base, LOG, LOG, 40)
    second.note(sent=10)
    own = {journal.path: journal.record for journal in (first, second)}
    found = health.look(settings.local_base, own)
    assert (found.sessions, found.orphans, found.bytes_at_risk) == (2, 0, 40 + 50)
    first.remove()
    second.remove()


@pytest.mark.parametrize("write", [False, True])
def test_a_storage_that_refuses_is_unhealthy_and_names_what_is_only_here(tmp_path, settings, writer, write):
    (tmp_path / "file").write_text("")
    broken = LogSettings(remote_base=f"file://{tmp_path}/file/remote", local_base=settings.local_base)
    found = health.check(open_store(broken.remote_base), broken, write=write)
    assert found.status == "unhealthy"
    assert "60 bytes are only on this machine" in found.message


def test_writing_leaves_nothing_behind(settings, tmp_path):
    assert asked(settings, write=True).status == "healthy"
    assert [path for path in (tmp_path / "remote").rglob("*") if path.is_file()] == []


def test_a_bucket_that_is_gone_is_unhealthy(s3, settings):
    missing = LogSettings(remote_base="s3://no-such-bucket/logs", local_base=settings.local_base)
    found = health.check(open_store(missing.remote_base, s3.options), missing)
    assert found.status == "unhealthy"
    assert "no-such-bucket" in found.message


def test_the_entry_point_gives_plain_data_and_no_error_for_wrong_settings(monkeypatch, tmp_path):
    (entry,) = entry_points(group="tradewind.health", name="logging")
    ask = entry.load()
    assert ask()["status"] == "degraded"
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_LOGGING", "True")
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", "nowhere")
    answer = ask()
    assert (answer["component"], answer["status"]) == ("tradewind-logging", "unhealthy")
    assert "remote_base_log_folder='nowhere'" in answer["message"]
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", f"file://{tmp_path}/remote")
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path))
    answer = ask()
    assert answer["status"] == "healthy"
    json.dumps(answer)


def test_the_command_prints_one_row_and_its_exit_code_tells(monkeypatch, capfd, settings, writer, tmp_path: Path):
    from argparse import Namespace

    from tradewind.logging import cli

    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", settings.remote_base)
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(settings.local_base))
    cli.status(Namespace(write=True, output="json"))
    (row,) = json.loads(capfd.readouterr().out)
    assert (row["status"], row["sessions"], row["bytes_at_risk"]) == ("healthy", 1, 60)
    writer.kill()
    writer.wait()
    with pytest.raises(SystemExit) as ended:
        cli.status(Namespace(write=False, output="json"))
    assert ended.value.code == 1
