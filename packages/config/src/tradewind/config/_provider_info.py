# SPDX-License-Identifier: Apache-2.0
"""What Airflow's provider discovery reads, inside the first configuration look-up of each process."""

from __future__ import annotations


def get_provider_info() -> dict[str, object]:
    """Describe this distribution to Airflow and put our defaults in place.

    Discovery runs once for core's configuration and once for the Task SDK's, whichever comes first; see
    `tradewind.config.overlay`. Schema: airflow/provider_info.schema.json.
    """
    from tradewind.config.overlay import install

    install()
    return {
        "package-name": "tradewind-config",
        "name": "Tradewind Config",
        "description": "Right concurrency and high-availability defaults, from the resources of the machine.",
        "cli": ["tradewind.config.cli.get_cli_commands"],
    }
