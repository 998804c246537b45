# SPDX-License-Identifier: Apache-2.0
"""`airflow tradewind-config`: Airflow loads the definitions at each command, the commands only when called."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from airflow.cli.cli_config import GroupCommand

__all__ = ["doctor", "explain", "get_cli_commands"]


def get_cli_commands() -> list[GroupCommand]:
    """The commands that this distribution adds to `airflow`."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

    # Airflow's Arg has no annotations.
    make: Callable[..., Any] = Arg
    output = make(("-o", "--output"), help="Output format.", choices=("table", "json"), default="table")
    setting = make(("setting",), help="One setting, for example core.parallelism.", nargs="?")
    fix = make(("--fix",), help="Repair what can be repaired safely.", action="store_true")
    return [
        GroupCommand(
            name="tradewind-config",
            help="Explain and check the defaults that Tradewind gives Airflow",
            subcommands=(
                ActionCommand(
                    name="explain",
                    help="Show each tuned setting: value, source, upstream's default, formula, reason",
                    func=lazy_load_command("tradewind.config.cli.explain"),
                    args=(setting, output),
                ),
                ActionCommand(
                    name="doctor",
                    help="Find what defeats the defaults; exit 1 when something should be mended",
                    func=lazy_load_command("tradewind.config.cli.doctor"),
                    args=(fix, output),
                ),
            ),
        )
    ]


def explain(args: Namespace) -> None:
    """Print explanations.

    Raises:
        SystemExit: With 2 when the setting is not one of Airflow's.
    """
    from airflow.configuration import conf

    from tradewind.config import overlay
    from tradewind.config.exceptions import TradewindConfigError
    from tradewind.config.explain import explain as explanations

    try:
        rows = explanations(conf, args.setting)
    except TradewindConfigError as error:
        _fail(str(error))
    known = overlay.snapshot(conf)
    if args.output == "table":
        machine = known.resources
        where = f"{machine.cpu:g} CPUs, {machine.memory_mb} MiB ({machine.source})" if machine else "unknown"
        profile = known.facts.profile if known.facts else "unknown"
        _note(f"role {known.role}, executor {known.executor}, profile {profile}, resources {where}")
    _print([asdict(row) for row in rows], args.output)


def doctor(args: Namespace) -> None:
    """Print findings.

    Raises:
        SystemExit: With 1 when something of severity warning or above is left, with 2 when airflow.cfg can't be
            read or repaired.
    """
    from airflow.configuration import AIRFLOW_CONFIG, conf

    from tradewind.config import doctor as checks
    from tradewind.config.exceptions import TradewindConfigError

    path = Path(AIRFLOW_CONFIG)
    try:
        findings = checks.examine(conf, path)
        if args.fix and any(finding.id == "frozen-airflow-cfg" for finding in findings):
            count, backup = checks.repair_frozen(conf, path)
            _note(f"{path}: {count} options commented out; the file as it was: {backup}")
            findings = checks.examine(conf, path)
    except TradewindConfigError as error:
        _fail(str(error))
    if args.output == "json" or findings:
        _print([asdict(finding) for finding in findings], args.output)
    else:
        _note("nothing found")
    if any(finding.severity != "info" for finding in findings):
        raise SystemExit(1)


def _print(rows: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        sys.stdout.write(json.dumps(rows) + "\n")
    else:
        from airflow.cli.simple_table import AirflowConsole
        from rich.markup import escape

        shown = [{k: escape(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
        AirflowConsole(show_header=True).print_as_table(shown)


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _fail(text: str) -> NoReturn:
    _note(text)
    raise SystemExit(2)
