# SPDX-License-Identifier: Apache-2.0
"""What all commands share: results on standard output, everything else on standard error, errors in one line."""

from __future__ import annotations

import functools
import json
import os
import sys
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator

__all__ = ["Result", "command", "note"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What a command answers.

    Args:
        data: What JSON shows; text is printed as it is.
        rows: What the table shows; `data` where it is None.
        nothing: What is said where there are no rows.
        headline: A line above the table.
        code: The exit code.
        form: `table` or `json`, where it is not what `--output` says.
    """

    data: str | Row | list[Row]
    rows: list[Row] | None = None
    nothing: str = "nothing found"
    headline: str | None = None
    code: int = 0
    form: str | None = None


def command(handler: Callable[[Namespace], Result]) -> Callable[[Namespace], None]:
    """Make a command of a function that answers with a `Result`.

    Args:
        handler: The function. What it raises of ours becomes one line and exit code 1.
    """

    @functools.wraps(handler)
    def run(args: Namespace) -> None:
        from tradewind.security.exceptions import CredentialError, TradewindSecurityError

        try:
            with _standard_output_for_results():
                result = handler(args)
        except CredentialError as error:
            note(f"the credential is not accepted ({error.reason})")
            raise SystemExit(1) from None
        except TradewindSecurityError as error:
            note(str(error))
            raise SystemExit(1) from None
        _show(result, result.form or getattr(args, "output", None))
        if result.code:
            raise SystemExit(result.code)

    return run


def note(text: str) -> None:
    """Say something to the person, beside the result."""
    sys.stderr.write(f"{text}\n")


@contextmanager
def _standard_output_for_results() -> Iterator[None]:
    """Airflow's logs and the audit log's `stdout:` go to stderr, so that a script can read our result."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def _show(result: Result, output: str | None) -> None:
    if isinstance(result.data, str):
        sys.stdout.write(result.data if result.data.endswith("\n") or not result.data else f"{result.data}\n")
    elif output == "json":
        sys.stdout.write(json.dumps(result.data, default=_plain) + "\n")
    else:
        _table(result)


def _table(result: Result) -> None:
    rows = result.rows
    if rows is None and isinstance(result.data, dict):
        rows = [{"field": key, "value": value} for key, value in result.data.items()]
    elif rows is None and isinstance(result.data, list):
        rows = result.data
    if result.headline:
        sys.stdout.write(f"{result.headline}\n")
    if not rows:
        note(result.nothing)
        return
    from airflow.cli.simple_table import AirflowConsole
    from rich.markup import escape

    AirflowConsole(show_header=True).print_as_table(
        [{key: escape(_text(value)) for key, value in row.items()} for row in rows]
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_text(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(_text(inner) for inner in value)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(value))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(type(value).__name__)
