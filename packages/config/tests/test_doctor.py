# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import stat
from configparser import ConfigParser
from io import StringIO
from typing import TYPE_CHECKING

import pytest

from tradewind.config import doctor
from tradewind.config.exceptions import TradewindConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def conf():
    from airflow.configuration import conf

    return conf


def frozen_file(conf, path: Path, changes: dict[str, str]) -> Path:
    """Write what stock Airflow writes at its first command, then edit lines as a user would."""
    text = StringIO()
    text.write("# kept: a note of the user's\n")
    conf.write(text, include_sources=False, only_defaults=True, show_values=True)
    live = []
    for line in text.getvalue().splitlines():
        # The installed overlay comments the values out; stock Airflow has them live.
        name, separator, _ = line.removeprefix("# ").partition(" = ")
        if line.startswith("# ") and separator and name.replace("_", "").isalnum() and name.islower():
            line = line.removeprefix("# ")  # noqa: PLW2901 - the line as stock Airflow has it
        live.append(changes.get(name, line) if separator else line)
    path.write_text("\n".join(live) + "\n")
    path.chmod(0o600)
    return path


def read(path: Path) -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.read(path)
    return parser


def test_a_frozen_file_is_found_and_the_settings_it_defeats_are_named(conf, tmp_path):
    path = frozen_file(conf, tmp_path / "airflow.cfg", {})
    (finding,) = [f for f in doctor.examine(conf, path) if f.id == "frozen-airflow-cfg"]
    assert finding.severity == "warning"
    assert "core.parallelism" in finding.message
    assert "--fix" in finding.fix


def test_repair_keeps_the_users_values_secrets_comments_and_mode(conf, tmp_path):
    changes = {"parallelism": "parallelism = 77", "fernet_key": "fernet_key = not-a-default"}
    path = frozen_file(conf, tmp_path / "airflow.cfg", changes)
    before = path.read_text()
    count, backup = doctor.repair_frozen(conf, path)
    after = read(path)
    assert count > 100
    assert after.get("core", "parallelism") == "77"
    assert after.get("core", "fernet_key") == "not-a-default"
    assert not after.has_option("dag_processor", "refresh_interval")
    assert "# refresh_interval = 300" in path.read_text()
    assert "# kept: a note of the user's" in path.read_text()
    assert backup.read_text() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [f for f in doctor.examine(conf, path) if f.id == "frozen-airflow-cfg"] == []


def test_a_repaired_file_is_left_alone_the_next_time(conf, tmp_path):
    path = frozen_file(conf, tmp_path / "airflow.cfg", {})
    doctor.repair_frozen(conf, path)
    once = path.read_text()
    count, _ = doctor.repair_frozen(conf, path)
    assert (count, path.read_text()) == (0, once)


def test_multi_line_values_are_commented_out_whole(conf, tmp_path):
    path = tmp_path / "airflow.cfg"
    default = conf.get_default_value("logging", "simple_log_format", raw=True)
    first, rest = default.split(" ", 1)
    path.write_text(f"[logging]\nsimple_log_format = {first}\n    {rest}\nbase_log_folder = /mine\n")
    count, _ = doctor.repair_frozen(conf, path)
    assert count == 1
    assert dict(read(path).items("logging")) == {"base_log_folder": "/mine"}


def test_a_short_file_with_a_users_own_choice_of_the_default_is_healthy(conf, tmp_path):
    path = tmp_path / "airflow.cfg"
    path.write_text("[core]\nparallelism = 32\n")
    assert [f for f in doctor.examine(conf, path) if f.severity != "info"] == []


def test_a_missing_file_is_healthy(conf, tmp_path):
    assert doctor.frozen_options(conf, tmp_path / "airflow.cfg") == set()


def test_a_file_that_is_no_configuration_is_refused_by_name(conf, tmp_path):
    path = tmp_path / "airflow.cfg"
    path.write_text("parallelism = 3\n")
    with pytest.raises(TradewindConfigError, match=r"airflow\.cfg can't be read"):
        doctor.examine(conf, path)
