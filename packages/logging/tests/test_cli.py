# SPDX-License-Identifier: Apache-2.0
"""`airflow tradewind-logs` as a person or a cron job uses it, without a metadata database."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tradewind.logging import layout, spool
from tradewind.logging.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

LOG = "dag_id=a/run_id=b/attempt=1.log"

RUN = """
import argparse, sys
from tradewind.logging.cli import get_cli_commands
(group,) = get_cli_commands()
parser = argparse.ArgumentParser()
(command,) = [c for c in group.subcommands if c.name == sys.argv[1]]
for arg in command.args:
    arg.add_to_parser(parser)
print("ready", flush=True)
command.func(parser.parse_args(sys.argv[2:]))
"""


@pytest.fixture
def base(tmp_path, monkeypatch) -> Path:
    local = tmp_path / "local"
    local.mkdir()
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", f"file://{tmp_path}/remote")
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(local))
    # Nothing may ask for it.
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "sqlite:////nonexistent/airflow.db")
    return local


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path}/remote")


def run(name: str, *args: str) -> int:
    """Parse and call one command, as Airflow does; returns the exit code."""
    from tradewind.logging.cli import get_cli_commands

    (group,) = get_cli_commands()
    parser = argparse.ArgumentParser()
    (command,) = [found for found in group.subcommands if found.name == name]
    for arg in command.args:
        arg.add_to_parser(parser)
    try:
        command.func(parser.parse_args(args))
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def leave(base: Path, data: bytes = b"text\n", log: str = LOG) -> None:
    (base / log).parent.mkdir(parents=True, exist_ok=True)
    journal = spool.open_journal(base, log, log, 0)
    (base / log).write_bytes(data)
    journal.close()


def test_the_commands_are_those_of_the_contract():
    from tradewind.logging.cli import get_cli_commands

    (group,) = get_cli_commands()
    assert group.name == "tradewind-logs"
    assert [command.name for command in group.subcommands] == ["sweep", "compact", "retention", "fsck", "status"]
    for command in group.subcommands:
        assert "--output" in [flag for arg in command.args for flag in arg.flags]


def test_sweep_uploads_and_prints_what_it_did(base, store, capsys):
    leave(base)
    assert run("sweep", "--output", "json") == 0
    (action,) = json.loads(capsys.readouterr().out)
    assert (action["outcome"], action["log"], action["bytes"]) == ("uploaded", LOG, 5)
    assert store.read(LOG) == b"text\n"
    assert run("sweep", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_sweep_dry_run_uploads_nothing(base, store, capsys):
    leave(base)
    assert run("sweep", "--dry-run", "--output", "json") == 0
    assert json.loads(capsys.readouterr().out)[0]["outcome"] == "would-upload"
    assert store.list(LOG) == {}


def test_sweep_takes_a_folder_and_an_age(base, store, tmp_path, capsys):
    path = tmp_path / "volume" / LOG
    path.parent.mkdir(parents=True)
    path.write_text("text\n")
    assert run("sweep", "--folder", str(tmp_path / "volume")) == 0
    assert store.list(LOG) == {}
    assert run("sweep", "--folder", str(tmp_path / "volume"), "--min-age-seconds", "0") == 0
    assert store.list(LOG) == {LOG: 5}


def test_a_table_shows_text_that_looks_like_markup_as_it_is(base, store, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    leave(base, log="dag_id=[red]x/attempt=1.log")
    assert run("sweep") == 0
    assert "dag_id=[red]x/attempt=1.log" in capsys.readouterr().out


def test_nothing_to_do_is_said_on_stderr(base, store, capsys):
    for name, text in (("sweep", "nothing to sweep"), ("compact", "nothing to compact"), ("fsck", "nothing found")):
        assert run(name) == 0
        captured = capsys.readouterr()
        assert captured.out == ""
        assert text in captured.err


def test_a_refused_upload_is_exit_code_1(base, store, tmp_path, capsys):
    leave(base)
    (tmp_path / "remote").write_text("a file where a folder should be")
    assert run("sweep", "--output", "json") == 1
    (action,) = json.loads(capsys.readouterr().out)
    assert action["outcome"] == "failed"
    assert (base / LOG).read_bytes() == b"text\n"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("sweep", "--folder", "/nonexistent/folder"), "/nonexistent/folder"),
        (("sweep", "--min-age-seconds", "-1"), "min-age-seconds"),
        (("sweep", "--min-age-seconds", "soon"), "min-age-seconds"),
        (("retention",), "retention_days=0"),
        (("retention", "--days", "0"), "above 0"),
        (("fsck", "--output", "xml"), "xml"),
    ],
)
def test_bad_input_is_exit_code_2_and_says_what_is_wrong(base, store, capsys, args, text):
    assert run(*args) == 2
    assert text in capsys.readouterr().err


def test_a_storage_without_package_or_scheme_is_exit_code_2(base, capsys, monkeypatch):
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", "quatsch://bucket")
    for name in ("sweep", "compact", "retention", "fsck"):
        assert run(name) == 2
        assert "quatsch" in capsys.readouterr().err


def test_compact_leaves_sessions_of_this_disk_alone(base, store, capsys):
    for head in (LOG, "dag_id=z/attempt=1.log"):
        store.put(head, b"0123")
        store.put(layout.part_key(head, 4), b"45")
    journal = spool.open_journal(base, LOG, LOG, 0)
    journal.note(claim=LOG, head=LOG)
    journal.close()
    assert run("compact", "--min-age-seconds", "0", "--output", "json") == 0
    assert [row["head"] for row in json.loads(capsys.readouterr().out)] == ["dag_id=z/attempt=1.log"]


def test_retention_deletes_expired_logs(base, store, capsys):
    store.put(LOG, b"text\n")
    then = time.time() - 10 * 86400
    os.utime(store.path(LOG), (then, then))
    assert run("retention", "--days", "5", "--dry-run", "--output", "json") == 0
    assert json.loads(capsys.readouterr().out)[0]["outcome"] == "expired"
    assert run("retention", "--days", "5", "--output", "json") == 0
    assert json.loads(capsys.readouterr().out)[0]["outcome"] == "deleted"
    assert store.list(LOG) == {}


def test_retention_takes_its_days_from_the_settings(base, store, capsys, monkeypatch):
    monkeypatch.setenv("AIRFLOW__TRADEWIND_LOGGING__RETENTION_DAYS", "7")
    assert run("retention") == 0
    assert "nothing has expired" in capsys.readouterr().err


def test_fsck_exits_1_until_it_has_repaired(base, store, capsys):
    store.put(LOG, b"0123")
    store.put(layout.part_key(LOG, 2), b"23")
    assert run("fsck", "--min-age-seconds", "0", "--output", "json") == 1
    assert json.loads(capsys.readouterr().out)[0]["id"] == "duplicated"
    assert run("fsck", "--min-age-seconds", "0", "--repair", "--output", "json") == 0
    assert json.loads(capsys.readouterr().out)[0]["severity"] == "info"
    assert store.list(LOG) == {LOG: 4}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_sweep_that_waits_and_releases_what_it_holds(base, store, tmp_path, number, code):
    leave(base)
    # The other sweeper at work, which this one waits for.
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); "
            "time.sleep(600)",
            str(base / ".tradewind" / "sweep.lock"),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout
    holder.stdout.readline()
    sweeper = subprocess.Popen(
        [sys.executable, "-c", RUN, "sweep"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert sweeper.stdout
        sweeper.stdout.readline()
        time.sleep(3)
        assert sweeper.poll() is None
        sweeper.send_signal(number)
        _, err = sweeper.communicate(timeout=30)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert sweeper.returncode == code
    assert "Traceback" not in err
    assert "run it again" in err
    assert run("sweep") == 0
    assert store.read(LOG) == b"text\n"


def test_a_signal_ends_a_sweep_whose_storage_does_not_answer(base, store, tmp_path, monkeypatch):
    pytest.importorskip("s3fs", reason="needs s3fs")
    leave(base)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = {
            "key": "k",
            "secret": "s",
            "endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "client_kwargs": {"region_name": "us-east-1"},
        }
        monkeypatch.setenv("AIRFLOW__TRADEWIND_LOGGING__STORAGE_OPTIONS", json.dumps(options))
        monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", "s3://bucket/logs")
        sweeper = subprocess.Popen(
            [sys.executable, "-c", RUN, "sweep"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            sweeper.send_signal(signal.SIGTERM)
            _, err = sweeper.communicate(timeout=30)
    assert sweeper.returncode == 143, err
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", f"file://{tmp_path}/remote")
    monkeypatch.delenv("AIRFLOW__TRADEWIND_LOGGING__STORAGE_OPTIONS")
    assert run("sweep") == 0
    assert store.read(LOG) == b"text\n"
