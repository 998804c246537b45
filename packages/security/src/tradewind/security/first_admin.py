# SPDX-License-Identifier: Apache-2.0
"""The first user of a new deployment."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ensure_admin"]

log = logging.getLogger(__name__)


def ensure_admin(organization: str, password: str | None, password_file: Path) -> bool:
    """Make the user `admin`, who owns the organization, where there is no user at all.

    Args:
        organization: The organization.
        password: The password, or None for a random one, which must be changed at the first login.
        password_file: Where a random password is written, readable by the file's owner only. The log, which many
            may read, gets this path and not the password.

    Returns:
        Whether it was made.

    Raises:
        InvalidValueError: The password is too short.
        StoreUnavailableError: The database does not answer.
    """
    from tradewind.security.store import users

    given = password
    password = users.first_admin(organization, given)
    if password is None or given:
        return password is not None
    try:
        password_file.parent.mkdir(parents=True, exist_ok=True)
        password_file.unlink(missing_ok=True)
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{password}\n")
    except OSError as error:
        log.warning(
            "The user admin was made, but its password could not be written to %s (%s): "
            "give it one with 'airflow tradewind-auth users set-password admin'",
            password_file,
            error.strerror,
        )
    else:
        log.warning("The user admin was made; its password, to be changed at the first login, is in %s", password_file)
    return True
