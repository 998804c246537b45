# SPDX-License-Identifier: Apache-2.0
from importlib.metadata import entry_points, version

from tradewind.security import __version__


def test_the_installed_distribution_has_the_version_of_the_source():
    assert version("tradewind-security") == __version__


def test_airflow_finds_the_provider_under_the_distributions_name():
    (entry_point,) = [e for e in entry_points(group="apache_airflow_provider") if e.dist.name == "tradewind-security"]
    assert entry_point.load()()["package-name"] == "tradewind-security"
