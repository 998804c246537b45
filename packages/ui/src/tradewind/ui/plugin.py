# SPDX-License-Identifier: Apache-2.0
"""The Airflow plugin.

Airflow loads plugins in every component, tasks included, so importing this module imports nothing of the
web stack; only the api-server asks for what is behind the properties.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

__all__ = ["TradewindUIPlugin"]

log = logging.getLogger(__name__)

PREFIX = "/tradewind"


def _footer_enabled() -> bool:
    from airflow.configuration import conf
    from airflow.exceptions import AirflowConfigException

    try:
        return bool(conf.getboolean("tradewind_ui", "footer_enabled", fallback=True))
    except AirflowConfigException as error:
        log.warning("[tradewind_ui] footer_enabled: %s; expected True or False, the footer is shown", error)
        return True


class TradewindUIPlugin(AirflowPlugin):
    """Mounts the API at `/tradewind` and puts the footer into every HTML document."""

    name = "tradewind_ui"

    # Airflow declares plain lists; properties instead are what keeps this module light, because only the
    # api-server reads them.
    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The API and the footer's script."""
        from tradewind.ui.api import create_app

        return [{"app": create_app(), "url_prefix": PREFIX, "name": "Tradewind UI"}]

    @cached_property
    def fastapi_root_middlewares(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The footer, unless `[tradewind_ui] footer_enabled` is False."""
        if not _footer_enabled():
            return []
        from tradewind.ui._assets import content_hash
        from tradewind.ui.middleware import FooterMiddleware
        from tradewind.ui.runtime_info import load

        info = load()
        script = f"{PREFIX}/static/footer.js?v={content_hash('footer.js')}"
        return [
            {
                "middleware": FooterMiddleware,
                "kwargs": {"product": info.product, "links": info.links, "script": script},
                "name": "Tradewind footer",
            }
        ]
