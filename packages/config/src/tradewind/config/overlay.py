# SPDX-License-Identifier: Apache-2.0
"""Puts our defaults between the user's configuration and Airflow's own.

Airflow 3.3 asks `AirflowConfigParser._lookup_sequence` where a value may come from, and
`_config_sources_for_as_dict` what to show as its source; both are documented there as open to
customisation. The parser exists twice, once in core and once in the Task SDK, and each loads the
`apache_airflow_provider` entry points inside its first look-up, before it reads that property: that is when
`install` runs (see `_provider_info`).

Order: environment > airflow.cfg > `_cmd` > `_secret` > tradewind > Airflow's default > provider defaults.
Whatever fails in here leaves Airflow's own defaults in place, with one warning for each process.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from configparser import ConfigParser
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tradewind.config.exceptions import FactsError, OverlayError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tradewind.config.facts import Facts
    from tradewind.config.profiles import Setting
    from tradewind.config.resources import Resources

__all__ = ["SOURCE", "Snapshot", "enabled", "install", "snapshot", "source_of"]

log = logging.getLogger("tradewind.config")

SOURCE = "tradewind"
"""The name of our defaults where Airflow shows the source of a value."""

SWITCH = "TRADEWIND_CONFIG_DEFAULTS"

_PARSER_MODULES = ("airflow._shared.configuration.parser", "airflow.sdk._shared.configuration.parser")
_EXTENDED = "_tradewind_overlay"
_SOURCE_NAMES = {
    "_get_environment_variables": "env var",
    "_get_option_from_config_file": "airflow.cfg",
    "_get_option_from_commands": "cmd",
    "_get_option_from_secrets": "secret",
    "_get_tradewind_default": SOURCE,
    "_get_option_from_defaults": "default",
    "_get_option_from_provider_metadata_config_fallbacks": "provider",
    "_get_option_from_provider_cfg_config_fallbacks": "provider",
}
# Airflow makes these up when it writes a new airflow.cfg; every process must read the same ones.
_GENERATED_SECRETS = {("api", "secret_key"), ("api_auth", "jwt_secret"), ("core", "fernet_key")}

Key = tuple[str, str]


@dataclass(frozen=True)
class Snapshot:
    """What the overlay computed in this process, once.

    Args:
        settings: (section, key) to the setting; empty when something was wrong.
        resources: The detected resources, or None.
        role: The role of this process.
        executor: Airflow's `[core] executor`.
        facts: The declared facts, or None.
        problem: Why there are no settings, or None.
        withheld: Settings that a condition of this deployment keeps at upstream's value, with the reason.
    """

    settings: Mapping[Key, Setting]
    resources: Resources | None = None
    role: str = "cli"
    executor: str = ""
    facts: Facts | None = None
    problem: str | None = None
    withheld: Mapping[Key, str] = field(default_factory=dict)


class _Process:
    lock = threading.RLock()
    snapshot: Snapshot | None = None
    warned = False


def enabled() -> bool:
    """Tell whether `TRADEWIND_CONFIG_DEFAULTS` leaves the defaults on.

    Raises:
        FactsError: The variable is neither on nor off.
    """
    text = os.environ.get(SWITCH, "").strip().lower()
    if text in {"", "on", "true", "1", "yes"}:
        return True
    if text in {"off", "false", "0", "no"}:
        return False
    raise FactsError(SWITCH, os.environ[SWITCH], "on or off")


def install() -> None:
    """Extend the configuration parsers that this process has loaded so far.

    Runs again, at no cost, whenever a second parser loads the providers. Never raises: a failure is
    reported as one warning and leaves Airflow as it is.
    """
    try:
        if not enabled():
            return
        for name in _PARSER_MODULES:
            module = sys.modules.get(name)
            if module is not None and _EXTENDED not in vars(module.AirflowConfigParser):
                _extend(module.AirflowConfigParser, module.VALUE_NOT_FOUND_SENTINEL)
    except Exception as error:  # noqa: BLE001 - Airflow must start whatever happens in here
        _warn(str(error))


def snapshot(parser: Any) -> Snapshot:
    """Compute the settings of this process, or return what was computed.

    Args:
        parser: The AirflowConfigParser that asks, of core or of the Task SDK.
    """
    with _Process.lock:
        if _Process.snapshot is None:
            # Set first: computing looks up [core] executor, which comes back here through the parser.
            _Process.snapshot = Snapshot(settings={})
            _Process.snapshot = _compute(parser)
        return _Process.snapshot


def source_of(parser: Any, section: str, key: str) -> tuple[str | None, str]:
    """Tell a setting's effective value and where it comes from.

    Args:
        parser: Airflow's `conf`, of core or of the Task SDK.
        section: For example `core`.
        key: For example `parallelism`.

    Returns:
        The value (None when the option is unknown) and its source: `env var`, `airflow.cfg`, `cmd`,
        `secret`, `tradewind`, `default`, `provider` or `not defined`.
    """
    for name, value in _found(parser, section, key):
        return value, _SOURCE_NAMES.get(name, name)
    return None, "not defined"


def _warn(problem: str) -> None:
    with _Process.lock:
        if not _Process.warned:
            _Process.warned = True
            log.warning("tradewind-config leaves Airflow's own defaults in place: %s", problem)


def _compute(parser: Any) -> Snapshot:
    from tradewind.config import facts as declared
    from tradewind.config import profiles, resources, roles

    role, executor = "cli", ""
    try:
        facts = declared.load()
        role = facts.role or roles.detect()
        executor = parser.get("core", "executor", suppress_warnings=True) or ""
        machine = resources.detect()
        settings = profiles.compute(machine, role, executor, facts, facts.profile)
    except Exception as error:  # noqa: BLE001 - Airflow must start whatever happens in here
        _warn(str(error))
        return Snapshot(settings={}, role=role, executor=executor, problem=str(error))
    withheld: dict[Key, str] = {}
    missing = _unshared_secrets(parser)
    if missing and ("api", "workers") in settings:
        del settings["api", "workers"]
        withheld["api", "workers"] = (
            f"{' and '.join(missing)} not set: each api-server process would make up its own and refuse the "
            "others' sessions"
        )
    return Snapshot(settings, machine, role, executor, facts, withheld=withheld)


def _unshared_secrets(parser: Any) -> list[str]:
    """Secrets that every api-server process would invent for itself; looks, but runs no command for them."""
    signing = ("api_auth", "jwt_secret"), ("api_auth", "jwt_private_key_path")
    missing = []
    if not any(_is_configured(parser, section, key) for section, key in signing):
        missing.append("[api_auth] jwt_secret")
    if not _is_configured(parser, "api", "secret_key"):
        missing.append("[api] secret_key")
    return missing


def _is_configured(parser: Any, section: str, key: str) -> bool:
    names = [(section, key)]
    if (section, key) in parser.deprecated_options:
        names.append(parser.deprecated_options[section, key][:2])
    for its_section, its_key in names:
        for suffix in ("", "_cmd", "_secret"):
            if os.environ.get(f"AIRFLOW__{its_section}__{its_key}{suffix}".upper()):
                return True
            # ConfigParser's own methods look into airflow.cfg only; Airflow's would run the command.
            if ConfigParser.has_option(parser, its_section, its_key + suffix) and ConfigParser.get(
                parser, its_section, its_key + suffix, raw=True
            ):
                return True
    return False


def _found(parser: Any, section: str, key: str) -> Iterator[tuple[str, Any]]:
    """Walk the look-up sequence as `AirflowConfigParser.get` does; yields (method, value) where one is found."""
    with parser.suppress_future_warnings():
        section, key, deprecated_section, deprecated_key, _ = parser._resolve_deprecated_lookup(
            section=section, key=key, lookup_from_deprecated=True
        )
        for method in parser._lookup_sequence:
            value = method(
                deprecated_key=deprecated_key,
                deprecated_section=deprecated_section,
                key=key,
                section=section,
                issue_warning=False,
            )
            if type(value).__name__ != "ValueNotFound":
                yield getattr(method, "__name__", type(method).__name__), value


def _is_users(parser: Any, section: str, key: str) -> bool:
    """Tell whether the user set this option, under its present or its former name."""
    return source_of(parser, section, key)[1] != SOURCE


def _extend(parser_class: Any, not_found: object) -> None:
    """Extend one AirflowConfigParser class.

    Raises:
        OverlayError: The class lacks something that the overlay builds on.
    """
    from tradewind.config.profiles import KEYS

    needed = [
        "_config_sources_for_as_dict",
        "_get_option_from_defaults",
        "_lookup_sequence",
        "_resolve_deprecated_lookup",
        "_write_value",
        "getsection",
        "suppress_future_warnings",
    ]
    missing = [name for name in needed if not hasattr(parser_class, name)]
    if missing:
        raise OverlayError(
            f"{parser_class.__module__}.AirflowConfigParser has no {', '.join(missing)}; this tradewind-config "
            "supports Airflow >=3.3,<3.4"
        )
    lookup_sequence: Callable[[Any], list[Callable[..., Any]]] = parser_class._lookup_sequence.fget
    sources_for_as_dict = parser_class._config_sources_for_as_dict.fget
    getsection, write_value = parser_class.getsection, parser_class._write_value

    def _get_tradewind_default(self: Any, *, key: str, section: str, **_: Any) -> Any:
        if (section, key) not in KEYS:
            return not_found
        setting = snapshot(self).settings.get((section, key))
        return not_found if setting is None else setting.as_config()

    def _lookup_sequence(self: Any) -> list[Callable[..., Any]]:
        sequence = lookup_sequence(self)
        names = [getattr(method, "__name__", "") for method in sequence]
        if "_get_option_from_defaults" in names:
            ours = functools.partial(_get_tradewind_default, self)
            functools.update_wrapper(ours, _get_tradewind_default)
            sequence.insert(names.index("_get_option_from_defaults"), ours)
        return sequence

    def _config_sources_for_as_dict(self: Any) -> list[tuple[str, ConfigParser]]:
        sources: list[tuple[str, ConfigParser]] = sources_for_as_dict(self)
        shown = ConfigParser(interpolation=None)
        for (section, key), setting in snapshot(self).settings.items():
            # as_dict lets the last source win, but a value set under an option's former name stands there
            # under that name: ours must not appear beside it under the new one.
            if _is_users(self, section, key):
                continue
            if not shown.has_section(section):
                shown.add_section(section)
            shown.set(section, key, setting.as_config())
        names = [name for name, _ in sources]
        sources.insert(names.index("default") + 1 if "default" in names else 0, (SOURCE, shown))
        return sources

    def _getsection(self: Any, section: str, team_name: str | None = None) -> Any:
        result = getsection(self, section, team_name)
        if result is not None:
            for (its_section, key), setting in snapshot(self).settings.items():
                if its_section == section and key in result and not _is_users(self, section, key):
                    result[key] = setting.value
        return result

    def _write_value(  # noqa: PLR0913, PLR0917 - Airflow's signature
        self: Any,
        file: Any,
        option: str,
        comment_out_everything: bool,
        needs_separation: bool,
        only_defaults: bool,
        section_to_write: str,
        hide_sensitive: bool,
        is_sensitive: bool,
        show_values: bool = False,
    ) -> None:
        # Only the airflow.cfg that Airflow writes at its first command has defaults as live values. They would
        # outrank ours (and every later Airflow's) from the second command on.
        if only_defaults and show_values and (section_to_write, option) not in _GENERATED_SECRETS:
            comment_out_everything = True
        write_value(
            self,
            file=file,
            option=option,
            comment_out_everything=comment_out_everything,
            needs_separation=needs_separation,
            only_defaults=only_defaults,
            section_to_write=section_to_write,
            hide_sensitive=hide_sensitive,
            is_sensitive=is_sensitive,
            show_values=show_values,
        )

    parser_class._lookup_sequence = property(_lookup_sequence)
    parser_class._config_sources_for_as_dict = property(_config_sources_for_as_dict)
    parser_class.getsection = _getsection
    parser_class._write_value = _write_value
    setattr(parser_class, _EXTENDED, True)
