# SPDX-License-Identifier: Apache-2.0
"""What the tests of this component share."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("store_fixtures")

from store_fixtures import (  # noqa: E402
    _workers,
    made_sqlite,
    postgres_store,
    security_postgres,
    store,
    workers,
)

__all__ = ["_workers", "made_sqlite", "postgres_store", "security_postgres", "store", "workers"]
