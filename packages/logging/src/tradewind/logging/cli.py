# SPDX-License-Identifier: Apache-2.0
"""`airflow tradewind-logs`: Airflow loads the definitions at each command, the commands only when called."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator

    from airflow.cli.cli_config import GroupCommand

    from tradewind.logging.config import LogSettings
    from tradewind.logging.store import Store

__all__ = ["compact", "fsck", "get_cli_commands", "retention", "status", "sweep"]


def get_cli_commands() -> list[GroupCommand]:
    """The commands that this distribution adds to `airflow`."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

    # Airflow's Arg has no annotations.
    make: Callable[..., Any] = Arg
    output = make(("-o", "--output"), help="Output format.", choices=("table", "json"), default="table")
    folder = make(("--folder",), help="The folder to sweep; [logging] base_log_folder by default.", default=None)
    dry_run = make(("--dry-run",), help="Only show what would be done.", action="store_true")
    repair = make(("--repair",), help="Delete what holds no byte that is not stored elsewhere.", action="store_true")
    days = make(
        ("--days",), help="Age in days; [tradewind_logging] retention_days by default.", type=_number, default=None
    )

    def age(default: int, what: str) -> Any:
        text = f"Leave {what} alone that was changed within this time (default {default})."
        return make(("--min-age-seconds",), help=text, type=_number, default=default)

    write = make(("--write",), help="Write, read and delete a small object too.", action="store_true")

    def command(name: str, text: str, *args: Any) -> ActionCommand:
        function = lazy_load_command(f"tradewind.logging.cli.{name}")
        return ActionCommand(name=name, help=text, func=function, args=(*args, output))

    session_age = age(3600, "a session")
    return [
        GroupCommand(
            name="tradewind-logs",
            help="Look after the task logs in remote storage",
            subcommands=(
                command(
                    "sweep",
                    "Upload the logs that killed processes left on this disk; exit 1 when some can't be",
                    folder,
                    age(60, "a file without journal"),
                    dry_run,
                ),
                command("compact", "Give each finished log session one object", session_age),
                command("retention", "Delete logs older than retention_days", days, dry_run),
                command(
                    "fsck",
                    "Find truncated, duplicated and orphaned objects; exit 1 when something is left",
                    repair,
                    session_age,
                ),
                command(
                    "status",
                    "Tell whether logs reach the storage and what only this disk has; exit 1 unless healthy",
                    write,
                ),
            ),
        )
    ]


def sweep(args: Namespace) -> None:
    """Upload what earlier processes left on this disk, and print it.

    Raises:
        SystemExit: With 1 when something is not stored, with 2 for bad input, with 130 or 143 after a signal.
    """
    from tradewind.logging.metrics import Meter
    from tradewind.logging.sweep import sweep as run

    with _guarded() as (store, settings), _progress() as tell:
        folder = Path(args.folder) if args.folder else None
        actions = run(
            store,
            settings,
            folder=folder,
            min_age_seconds=args.min_age_seconds,
            dry_run=args.dry_run,
            progress=None if tell is None else lambda path, done, total: tell(f"{path}: {done} of {total} bytes"),
        )
    meter = Meter()
    for action in actions:
        meter.count("swept", outcome=action.outcome)
    _print([asdict(action) for action in actions], args.output, "nothing to sweep")
    if any(action.outcome in {"failed", "incomplete", "lost"} for action in actions):
        raise SystemExit(1)


def compact(args: Namespace) -> None:
    """Give each finished session one object, and print which.

    Raises:
        SystemExit: With 1 when one could not be, with 2 for bad input, with 130 or 143 after a signal.
    """
    from tradewind.logging.maintenance import compact as run

    with _guarded() as (store, settings), _progress() as tell:
        done = run(store, min_age_seconds=args.min_age_seconds, held=_held(settings), progress=tell)
    _print([asdict(row) for row in done], args.output, "nothing to compact")
    if any(row.outcome != "compacted" for row in done):
        raise SystemExit(1)


def retention(args: Namespace) -> None:
    """Delete expired logs, and print which.

    Raises:
        SystemExit: With 1 when one could not be, with 2 for bad input, with 130 or 143 after a signal.
    """
    from tradewind.logging.maintenance import retention as run

    with _guarded() as (store, settings):
        days = settings.retention_days if args.days is None else args.days
        done = run(store, days, dry_run=args.dry_run, held=_held(settings))
    _print([asdict(row) for row in done], args.output, "nothing has expired")
    if any(row.outcome == "failed" for row in done):
        raise SystemExit(1)


def fsck(args: Namespace) -> None:
    """Print what is damaged.

    Raises:
        SystemExit: With 1 when something of severity warning or above is left, with 2 for bad input, with 130 or 143
            after a signal.
    """
    from tradewind.logging.maintenance import fsck as run

    with _guarded() as (store, settings):
        findings = run(store, repair=args.repair, min_age_seconds=args.min_age_seconds, held=_held(settings))
    _print([asdict(finding) for finding in findings], args.output, "nothing found")
    if any(finding.severity != "info" for finding in findings):
        raise SystemExit(1)


def status(args: Namespace) -> None:
    """Print whether logs reach the storage, and what only this disk has.

    Raises:
        SystemExit: With 1 unless all is well, with 2 for bad input, with 130 or 143 after a signal.
    """
    from tradewind.logging.health import check

    with _guarded() as (store, settings):
        health = asdict(check(store, settings, write=args.write))
    row = {**health.pop("spooled"), **health}
    _print([row], args.output, "")
    if row["status"] != "healthy":
        raise SystemExit(1)


def _held(settings: LogSettings) -> frozenset[str]:
    """Every key that a session of this disk may be writing, or that the sweeper has yet to finish."""
    from tradewind.logging import layout, spool

    held = set()
    for _, record in spool.journals(settings.local_base):
        own = layout.session_key(record.log, record.started_ms, record.token)
        held |= {key for key in (record.head, record.claim, own) if key}
    return frozenset(held)


@contextlib.contextmanager
def _guarded() -> Iterator[tuple[Store, LogSettings]]:
    """Open the storage; turn our errors into exit codes, and signals into an orderly end."""
    from tradewind.logging.exceptions import LogSettingsError, TradewindLoggingError
    from tradewind.logging.remote import reading_store

    def stop(number: int, _: object) -> NoReturn:
        _note(f"stopped by {signal.Signals(number).name}; run it again to go on")
        raise SystemExit(128 + number)

    previous = {}
    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _stdout_for_results():
            yield reading_store()
    except TradewindLoggingError as error:
        _note(str(error))
        raise SystemExit(2 if isinstance(error, LogSettingsError) else 1) from error
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _stdout_for_results() -> Iterator[None]:
    """Airflow's hooks log to stdout; what they say goes to stderr, so that a script can read our result."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None] | None]:
    """A line on stderr that says what is being done; None unless a person looks at it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("looking") as status:
        yield lambda text: status.update(escape(text))


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(text)
    return value


def _print(rows: list[dict[str, Any]], output: str, nothing: str) -> None:
    if output == "json":
        sys.stdout.write(json.dumps(rows) + "\n")
    elif rows:
        from airflow.cli.simple_table import AirflowConsole
        from rich.markup import escape

        shown = [{k: escape(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
        AirflowConsole(show_header=True).print_as_table(shown)
    else:
        _note(nothing)


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")
