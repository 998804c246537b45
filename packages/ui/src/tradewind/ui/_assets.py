# SPDX-License-Identifier: Apache-2.0
"""The files that browsers load."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"

_HASH_CHARACTERS = 12


@cache
def _hashes() -> dict[str, str]:
    return {
        path.relative_to(STATIC).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:_HASH_CHARACTERS]
        for path in STATIC.rglob("*")
        if path.is_file()
    }


def content_hash(name: str) -> str | None:
    """A name for this content of a file, or None where there is no such file.

    Args:
        name: The path below `static/`, for example `footer.js`.
    """
    return _hashes().get(name)
