# SPDX-License-Identifier: Apache-2.0
"""Why a setting has the value that it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tradewind.config import overlay, profiles
from tradewind.config.exceptions import TradewindConfigError

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True)
class Explanation:
    """One setting.

    Args:
        setting: `section.key`.
        value: What Airflow uses in this process; `< hidden >` for a sensitive option.
        source: `env var`, `airflow.cfg`, `cmd`, `secret`, `tradewind`, `default`, `provider`.
        upstream: Airflow's own default.
        tradewind: What tradewind computed, or None where it has nothing to say.
        formula: How, with the values of its inputs.
        reason: Why it differs from upstream, or why it is withheld.
    """

    setting: str
    value: str | None
    source: str
    upstream: str | None
    tradewind: str | None
    formula: str
    reason: str


def explain(parser: Any, only: str | None = None) -> list[Explanation]:
    """Explain every setting that tradewind tunes, or one setting of any kind.

    Args:
        parser: Airflow's `conf`, of core or of the Task SDK.
        only: `section.key`; everything that tradewind tunes in this process when None.

    Raises:
        TradewindConfigError: `only` is not of the form `section.key`, or Airflow has no such option.
    """
    known = overlay.snapshot(parser)
    if only is None:
        keys = sorted({*known.settings, *known.withheld})
    else:
        section, separator, key = only.rpartition(".")
        if not separator or not section or not key:
            raise TradewindConfigError(f"setting {only!r}: expected section.key, for example core.parallelism")
        keys = [(section.lower(), key.lower())]
        if overlay.source_of(parser, *keys[0])[1] == "not defined":
            raise TradewindConfigError(f"setting {only!r}: Airflow has no option {key!r} in section {section!r}")
    return [_explain_one(parser, known, *key) for key in keys]


def _explain_one(parser: Any, known: overlay.Snapshot, section: str, key: str) -> Explanation:
    setting = known.settings.get((section, key))
    value, source = overlay.source_of(parser, section, key)
    upstream = parser.get_default_value(section, key)
    if (section, key) in parser.sensitive_config_values:
        value, upstream = "< hidden >", None
    formula, reason = "", "tradewind does not change this setting"
    if setting is not None and known.resources is not None and known.facts is not None:
        given = profiles.inputs(known.resources, known.facts, known.facts.profile)
        named = ", ".join(f"{name}={given[name]:g}" for name in given if name in setting.formula)
        formula = f"{setting.formula}  [{named}]" if named else setting.formula
        reason = setting.reason
    elif (section, key) in known.withheld:
        reason = known.withheld[section, key]
    elif known.problem and (section, key) in profiles.KEYS:
        reason = known.problem
    return Explanation(
        setting=f"{section}.{key}",
        value=value,
        source=source,
        upstream=None if upstream is None else str(upstream),
        tradewind=setting.as_config() if setting else None,
        formula=formula,
        reason=reason,
    )
