# SPDX-License-Identifier: Apache-2.0
"""Looks for what defeats the defaults, and repairs it where that is safe."""

from __future__ import annotations

import os
import shutil
import time
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tradewind.config import overlay
from tradewind.config.exceptions import FactsError, TradewindConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SEVERITIES", "Finding", "examine", "frozen_options", "repair_frozen"]

SEVERITIES: tuple[str, ...] = ("info", "warning", "error")
"""From harmless to harmful."""

# Nobody types this many options that say what Airflow would do anyway; Airflow 3.3.2 writes 429.
_FROZEN_FROM = 100


@dataclass(frozen=True)
class Finding:
    """Something that the deployment's owner should know.

    Args:
        id: Stable identifier.
        severity: One of `SEVERITIES`.
        setting: The setting, variable or file concerned.
        message: What it is and why it hurts.
        fix: What to do.
    """

    id: str
    severity: str
    setting: str
    message: str
    fix: str


def examine(parser: Any, airflow_cfg: Path) -> list[Finding]:
    """Look for everything that keeps the defaults from working.

    Args:
        parser: Airflow's `conf`.
        airflow_cfg: The configuration file that Airflow reads; may be missing.
    """
    return [*_declared(parser), *_frozen(parser, airflow_cfg)]


def _declared(parser: Any) -> Iterator[Finding]:
    try:
        on = overlay.enabled()
    except FactsError as error:
        yield Finding("facts-malformed", "error", error.name, str(error), f"set {error.name} to {error.expected}")
        return
    if not on:
        yield Finding(
            "defaults-off",
            "info",
            overlay.SWITCH,
            "tradewind's defaults are switched off; Airflow runs on its own",
            f"unset {overlay.SWITCH}",
        )
        return
    known = overlay.snapshot(parser)
    if known.problem:
        yield Finding(
            "facts-malformed",
            "error",
            known.problem.partition("=")[0],
            f"Airflow runs on its own defaults: {known.problem}",
            "correct the value, then restart every component",
        )
    for (section, key), reason in sorted(known.withheld.items()):
        yield Finding("setting-withheld", "info", f"{section}.{key}", reason, "set them in every component alike")


def _frozen(parser: Any, airflow_cfg: Path) -> Iterator[Finding]:
    frozen = frozen_options(parser, airflow_cfg)
    if len(frozen) < _FROZEN_FROM:
        return
    tuned = sorted(f"{s}.{k}" for s, k in frozen if (s, k) in overlay.snapshot(parser).settings)
    defeated = f", {', '.join(tuned)} among them" if tuned else ""
    yield Finding(
        "frozen-airflow-cfg",
        "warning",
        str(airflow_cfg),
        f"{len(frozen)} options stand there as live values equal to Airflow's defaults (Airflow's first command "
        f"writes such a file). They outrank every default, now and after an upgrade{defeated}",
        "airflow tradewind-config doctor --fix  (comments them out, keeps your own values and a backup)",
    )


def frozen_options(parser: Any, airflow_cfg: Path) -> set[tuple[str, str]]:
    """Options of a configuration file that say what Airflow's default says.

    Args:
        parser: Airflow's `conf`.
        airflow_cfg: The file; a missing one has no options.

    Raises:
        TradewindConfigError: The file can't be read.
    """
    if not airflow_cfg.is_file():
        return set()
    written = ConfigParser(interpolation=None)
    try:
        written.read_string(airflow_cfg.read_text(encoding="utf-8"), source=str(airflow_cfg))
    except (ConfigParserError, OSError, UnicodeDecodeError) as error:
        raise TradewindConfigError(f"{airflow_cfg} can't be read: {error}") from error
    return {
        (section, key)
        for section in written.sections()
        for key, value in written.items(section)
        if _same(value, parser.get_default_value(section, key, raw=True))
    }


def _same(value: str, default: object) -> bool:
    # A multi-line value is indented when it is written, and JSON is reformatted; neither changes its meaning.
    return default is not None and value.split() == str(default).split()


def repair_frozen(parser: Any, airflow_cfg: Path) -> tuple[int, Path]:
    """Comment out the options that equal Airflow's default; every other line stays as it is.

    Args:
        parser: Airflow's `conf`.
        airflow_cfg: The file to repair.

    Returns:
        How many options were commented out, and the path of the backup.

    Raises:
        TradewindConfigError: The file can't be read or written; it is then unchanged.
    """
    frozen = frozen_options(parser, airflow_cfg)
    backup = airflow_cfg.with_name(f"{airflow_cfg.name}.{time.strftime('%Y%m%dT%H%M%S')}.bak")
    new = airflow_cfg.with_name(f".{airflow_cfg.name}.{os.getpid()}.new")
    try:
        lines = airflow_cfg.read_text(encoding="utf-8").splitlines(keepends=True)
        shutil.copy2(airflow_cfg, backup)
        try:
            # The file may hold secrets: never readable by others, not even before copystat.
            new.touch(mode=0o600)
            new.write_text("".join(_commented(lines, frozen)), encoding="utf-8")
            shutil.copystat(airflow_cfg, new)
            new.replace(airflow_cfg)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise TradewindConfigError(f"{airflow_cfg} can't be repaired: {error}") from error
    return len(frozen), backup


def _commented(lines: list[str], frozen: set[tuple[str, str]]) -> Iterator[str]:
    section, inside = "", False
    for line in lines:
        text = line.strip()
        if text.startswith("[") and text.endswith("]"):
            section, inside = text[1:-1], False
        elif text and not text.startswith(("#", ";")) and not line[0].isspace():
            key = text.replace(":", "=").partition("=")[0].strip().lower()
            inside = (section, key) in frozen
        yield f"# {line}" if inside and text and not text.startswith("#") else line
