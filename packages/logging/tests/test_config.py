# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from configparser import ConfigParser

import pytest

from tradewind.logging.config import from_conf
from tradewind.logging.exceptions import LogSettingsError
from tradewind.logging.remote import check_installed


def conf(**ours: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser["logging"] = {"base_log_folder": "/logs", "remote_base_log_folder": "s3://bucket/logs/"}
    parser["tradewind_logging"] = ours
    return parser


def test_defaults_are_those_of_the_contract():
    settings = from_conf(conf())
    assert settings.remote_base == "s3://bucket/logs"
    assert (settings.flush_interval_seconds, settings.first_flush_seconds) == (5, 1)
    assert (settings.part_bytes, settings.read_block_bytes) == (4194304, 4194304)
    assert (settings.economy_after_seconds, settings.economy_interval_seconds) == (600, 10)
    assert (settings.max_puts_per_second, settings.upload_timeout_seconds) == (50, 10)
    assert settings.include_trigger_logs
    assert settings.sweep_on_start
    assert settings.retention_days == 0
    assert settings.storage_options == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("flush_interval_seconds", "soon"),
        ("flush_interval_seconds", "0"),
        ("first_flush_seconds", "-1"),
        ("upload_timeout_seconds", "inf"),
        ("part_bytes", "4MB"),
        ("part_bytes", "10"),
        ("retention_days", "-3"),
        ("include_trigger_logs", "perhaps"),
    ],
)
def test_a_malformed_setting_is_named_with_its_value(key, value):
    with pytest.raises(LogSettingsError) as caught:
        from_conf(conf(**{key: value}))
    assert f"[tradewind_logging] {key}={value!r}: expected" in str(caught.value)


def test_malformed_storage_options_are_refused_without_showing_them():
    with pytest.raises(LogSettingsError) as caught:
        from_conf(conf(storage_options='{"secret": "hunter2"'))
    assert "storage_options" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_storage_options_are_not_in_the_repr():
    assert "hunter2" not in repr(from_conf(conf(storage_options='{"secret": "hunter2"}')))


@pytest.mark.parametrize("url", ["", "bucket/logs", "/var/log"])
def test_a_folder_that_is_no_url_is_refused(url):
    parser = conf()
    parser["logging"]["remote_base_log_folder"] = url
    with pytest.raises(LogSettingsError, match="remote_base_log_folder"):
        from_conf(parser)


def test_a_missing_package_is_named_with_the_extra_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(LogSettingsError, match=r"gcsfs: pip install 'tradewind-logging\[gcs\]'"):
        check_installed("gs://bucket/logs")


def test_an_unknown_scheme_is_named():
    with pytest.raises(LogSettingsError, match="unknown scheme 's4'"):
        check_installed("s4://bucket/logs")


@pytest.mark.parametrize("url", ["file:///x", "memory://x", "sftp://host/x"])
def test_a_scheme_that_fsspec_knows_is_accepted(url):
    check_installed(url)
