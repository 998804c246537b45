# SPDX-License-Identifier: Apache-2.0
import logging

import pytest

from tradewind.ui.middleware import FooterMiddleware
from tradewind.ui.plugin import TradewindUIPlugin

SETTING = "AIRFLOW__TRADEWIND_UI__FOOTER_ENABLED"


@pytest.mark.parametrize("value", [None, "True", "1"])
def test_the_footer_is_on_by_default(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv(SETTING, value)
    (entry,) = TradewindUIPlugin().fastapi_root_middlewares
    assert entry["middleware"] is FooterMiddleware
    assert entry["name"]


def test_the_footer_can_be_turned_off_and_the_api_stays(monkeypatch):
    monkeypatch.setenv(SETTING, "False")
    plugin = TradewindUIPlugin()
    assert plugin.fastapi_root_middlewares == []
    assert [app["url_prefix"] for app in plugin.fastapi_apps] == ["/tradewind"]


def test_a_malformed_setting_is_named_and_does_not_stop_the_server(monkeypatch, caplog):
    monkeypatch.setenv(SETTING, "perhaps")
    with caplog.at_level(logging.WARNING, logger="tradewind.ui.plugin"):
        assert len(TradewindUIPlugin().fastapi_root_middlewares) == 1
    (record,) = caplog.records
    assert "footer_enabled" in record.getMessage()
    assert "perhaps" in record.getMessage()


def test_the_application_is_built_once_however_often_it_is_asked_for():
    plugin = TradewindUIPlugin()
    assert plugin.fastapi_apps[0]["app"] is plugin.fastapi_apps[0]["app"]
