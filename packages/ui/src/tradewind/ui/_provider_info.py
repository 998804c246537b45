# SPDX-License-Identifier: Apache-2.0
"""What Airflow's provider discovery reads; imports nothing, because it runs in every Airflow process."""

from __future__ import annotations


def get_provider_info() -> dict[str, object]:
    """Describe this distribution to Airflow (schema: airflow/provider_info.schema.json)."""
    return {
        "package-name": "tradewind-ui",
        "name": "Tradewind ui",
        "description": "Airflow UI extensions: see which runtime you are on, on every page.",
        "config": {
            "tradewind_ui": {
                "description": "What tradewind-ui adds to Airflow's web pages.",
                "options": {
                    "footer_enabled": {
                        "description": "Show the footer at the end of every page. Takes effect when the "
                        "api-server starts.",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": "False",
                        "default": "True",
                    },
                },
            },
        },
    }
