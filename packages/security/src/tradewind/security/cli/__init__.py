# SPDX-License-Identifier: Apache-2.0
"""`airflow tradewind-auth`."""

from __future__ import annotations

__all__: list[str] = []
