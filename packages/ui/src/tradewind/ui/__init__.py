# SPDX-License-Identifier: Apache-2.0
"""Airflow UI extensions: see which runtime you are on, on every page."""

from tradewind.ui._version import __version__

__all__ = ["__version__"]
