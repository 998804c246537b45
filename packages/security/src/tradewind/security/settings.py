# SPDX-License-Identifier: Apache-2.0
"""`[tradewind_security]` of airflow.cfg."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from airflow.configuration import conf

from tradewind.security.exceptions import SettingsError

__all__ = ["SECTION", "SecuritySettings"]

SECTION = "tradewind_security"


@dataclass(frozen=True)
class SecuritySettings:
    """The settings of this component.

    Args:
        policy_file: Path of the policy, or None: only what is in the database holds.
        reload_seconds: A change of the file holds after at most this long.
        poll_seconds: A change in the database holds after at most this long.
        audit: Where audit events go: `stdout:`, `table:` and URLs of folders.
        audit_days: Events in the table are deleted when they are older than so many days; 0 keeps them.
        create_admin: Make a local user `admin` when there is no user at all.
        admin_password: Its password, from a secret of the deployment; without one it is random.
        admin_password_file: Where a random password is written, once, readable by its owner only.
        security_headers: Send security headers with every answer.
    """

    policy_file: Path | None = None
    reload_seconds: float = 5.0
    poll_seconds: float = 2.0
    audit: tuple[str, ...] = ("stdout:", "table:")
    audit_days: int = 90
    create_admin: bool = True
    admin_password: str | None = field(default=None, repr=False)
    admin_password_file: Path = Path("tradewind-admin-password")
    security_headers: bool = True

    @classmethod
    def from_config(cls) -> SecuritySettings:
        """Read Airflow's configuration.

        Raises:
            SettingsError: A setting is malformed.
        """
        file = conf.get(SECTION, "policy_file", fallback="").strip()
        password_file = conf.get(SECTION, "admin_password_file", fallback="").strip()
        home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
        return cls(
            policy_file=Path(file).expanduser() if file else None,
            reload_seconds=_number("reload_seconds", 5.0, 0.1, 3600),
            poll_seconds=_number("poll_seconds", 2.0, 0.1, 60),
            audit=_sinks(),
            audit_days=int(_number("audit_days", 90, 0, 36500)),
            create_admin=_boolean("create_admin", default=True),
            admin_password=conf.get(SECTION, "admin_password", fallback="") or None,
            admin_password_file=Path(password_file).expanduser()
            if password_file
            else home / "tradewind-admin-password",
            security_headers=_boolean("security_headers", default=True),
        )


def _number(key: str, default: float, least: float, most: float) -> float:
    text = conf.get(SECTION, key, fallback="") or str(default)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise SettingsError(f"[{SECTION}] {key}={text!r}: expected a number from {least:g} to {most:g}")
    return value


def _boolean(key: str, *, default: bool) -> bool:
    text = (conf.get(SECTION, key, fallback="") or str(default)).strip().lower()
    if text not in {"true", "t", "1", "yes", "false", "f", "0", "no"}:
        raise SettingsError(f"[{SECTION}] {key}={text!r}: expected True or False")
    return text in {"true", "t", "1", "yes"}


def _sinks() -> tuple[str, ...]:
    text = conf.get(SECTION, "audit", fallback="stdout:,table:")
    sinks = tuple(part.strip() for part in text.split(",") if part.strip())
    for sink in sinks:
        if ":" not in sink:
            raise SettingsError(
                f"[{SECTION}] audit={text!r}: expected stdout:, table: or URLs of folders, not {sink!r}"
            )
    return sinks
