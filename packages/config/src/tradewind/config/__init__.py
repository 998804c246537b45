# SPDX-License-Identifier: Apache-2.0
"""Right concurrency and high-availability defaults for Apache Airflow.

Installing the distribution is all it takes: Airflow's provider discovery loads it at the first
configuration look-up of every Airflow process, and from then on the settings in `tradewind.config.profiles`
stand between the user's configuration and Airflow's own defaults. `airflow tradewind-config explain` shows
them; `TRADEWIND_CONFIG_DEFAULTS=off` gives stock Airflow back.
"""

from tradewind.config._version import __version__

__all__ = ["__version__"]
