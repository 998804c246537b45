# SPDX-License-Identifier: Apache-2.0
"""What no process can see by itself: facts about the deployment, declared by its owner.

Each fact is an environment variable (`TRADEWIND_<NAME>`) or a key of a YAML file; a variable wins over the
file. The file is `TRADEWIND_CONFIG_FILE`, else `$AIRFLOW_HOME/tradewind.yaml`, else
`/etc/tradewind/tradewind.yaml`, whichever exists first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradewind.config.exceptions import FactsError
from tradewind.config.roles import ROLES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PROFILES", "Facts", "load"]

PROFILES: tuple[str, ...] = ("balanced", "small", "throughput", "ha")
"""Names of the profiles, as in `TRADEWIND_PROFILE`."""

SYSTEM_FILE = Path("/etc/tradewind/tradewind.yaml")


@dataclass(frozen=True)
class Facts:
    """Declared facts about the deployment.

    Args:
        profile: One of `PROFILES`.
        role: One of `tradewind.config.roles.ROLES`; None means: tell it from the command line.
        task_memory_mb: Memory that one running task needs, in MiB.
        workers_max: The largest number of workers that this deployment runs at one time.
    """

    profile: str = "balanced"
    role: str | None = None
    task_memory_mb: int = 256
    workers_max: int = 1


def load(environ: Mapping[str, str] | None = None) -> Facts:
    """Read the facts.

    Args:
        environ: The environment; `os.environ` when None.

    Returns:
        The facts, with defaults where nothing is declared.

    Raises:
        FactsError: A variable or the file is malformed, or the file that TRADEWIND_CONFIG_FILE names is
            missing.
    """
    environment = os.environ if environ is None else environ
    facts = Facts()
    path = _file(environment)
    if path is not None:
        for key, value in _read(path).items():
            facts = _with(facts, key, value, f"{path}: {key}")
    for field in fields(Facts):
        variable = f"TRADEWIND_{field.name.upper()}"
        text = environment.get(variable)
        if text is not None and text.strip():
            facts = _with(facts, field.name, text.strip(), variable)
    return facts


def _file(environment: Mapping[str, str]) -> Path | None:
    named = environment.get("TRADEWIND_CONFIG_FILE", "").strip()
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise FactsError("TRADEWIND_CONFIG_FILE", named, "the path of an existing YAML file")
        return path
    home = Path(os.path.expandvars(environment.get("AIRFLOW_HOME", "~/airflow"))).expanduser()
    return next((path for path in (home / "tradewind.yaml", SYSTEM_FILE) if path.is_file()), None)


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise FactsError(where, getattr(error, "problem", None) or "malformed", "well-formed YAML") from error
    except (OSError, UnicodeDecodeError) as error:
        raise FactsError(str(path), str(error), "a readable UTF-8 file") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise FactsError(str(path), content, "a mapping, for example `profile: balanced`")
    known = [field.name for field in fields(Facts)]
    for key in content:
        if key not in known:
            raise FactsError(f"{path}: {key}", content[key], f"one of the keys {', '.join(known)}")
    return content


def _with(facts: Facts, key: str, value: object, name: str) -> Facts:
    if key == "profile":
        return replace(facts, profile=_choice(name, value, PROFILES))
    if key == "role":
        return replace(facts, role=_choice(name, value, ROLES))
    if key == "task_memory_mb":
        return replace(facts, task_memory_mb=_whole(name, value, "MiB, for example 256"))
    return replace(facts, workers_max=_whole(name, value, "workers, for example 3"))


def _choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise FactsError(name, value, f"one of {', '.join(choices)}")
    return value


def _whole(name: str, value: object, unit: str) -> int:
    expected = f"a whole number of {unit}, at least 1"
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise FactsError(name, value, expected)
    text = str(value)
    if not (text.isascii() and text.isdecimal()) or len(text) > 9 or int(text) < 1:  # noqa: PLR2004 - 9 digits
        raise FactsError(name, value, expected)
    return int(text)
