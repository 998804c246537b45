# SPDX-License-Identifier: Apache-2.0
"""What Airflow's provider discovery reads; imports nothing, because it runs in every Airflow process."""

from __future__ import annotations


def get_provider_info() -> dict[str, object]:
    """Describe this distribution to Airflow (schema: airflow/provider_info.schema.json)."""
    return {
        "package-name": "tradewind-$name",
        "name": "Tradewind $name",
        "description": "$summary",
    }
