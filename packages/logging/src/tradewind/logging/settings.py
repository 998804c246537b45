# SPDX-License-Identifier: Apache-2.0
"""What `[logging] logging_config_class = tradewind.logging.settings.LOGGING_CONFIG` names.

Airflow imports this module in every component and reads three names of it. The dictionary is Airflow's own
default with our task handler; it is written out here, because Airflow's module refuses storage schemes that
it does not know.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from tradewind.logging.exceptions import TradewindLoggingError
from tradewind.logging.remote import TradewindRemoteLogIO, airflow_conf

__all__ = ["DEFAULT_REMOTE_CONN_ID", "LOGGING_CONFIG", "REMOTE_TASK_LOG"]

log = logging.getLogger("tradewind.logging")

_conf = airflow_conf()
_level = _conf.get("logging", "logging_level").upper()

LOGGING_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "airflow": {
            "format": _conf.get("logging", "log_format"),
            "class": _conf.get(
                "logging", "log_formatter_class", fallback="airflow.utils.log.timezone_aware.TimezoneAware"
            ),
        },
    },
    "filters": {"mask_secrets_core": {"()": "airflow._shared.secrets_masker._secrets_masker"}},
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "airflow",
            "stream": "sys.stdout",
            "filters": ["mask_secrets_core"],
        },
        "task": {
            "class": "tradewind.logging.handler.TradewindTaskHandler",
            "formatter": "airflow",
            "base_log_folder": os.path.expanduser(_conf.get("logging", "base_log_folder")),  # noqa: PTH111
            "filters": ["mask_secrets_core"],
        },
    },
    "loggers": {
        "airflow.task": {
            "handlers": ["task"],
            "level": _level,
            "propagate": True,
            "filters": ["mask_secrets_core"],
        },
        "flask_appbuilder": {
            "handlers": ["console"],
            "level": _conf.get("logging", "fab_logging_level").upper(),
            "propagate": True,
        },
    },
    "root": {"handlers": ["console"], "level": _level, "filters": ["mask_secrets_core"]},
}
for _name in (_conf.get("logging", "extra_logger_names", fallback="") or "").split(","):
    if _name.strip():
        LOGGING_CONFIG["loggers"][_name.strip()] = {"handlers": ["console"], "level": _level, "propagate": True}

REMOTE_TASK_LOG: TradewindRemoteLogIO | None = None
DEFAULT_REMOTE_CONN_ID: str | None = None

if _conf.getboolean("logging", "remote_logging"):
    try:
        REMOTE_TASK_LOG = TradewindRemoteLogIO.from_config()
        DEFAULT_REMOTE_CONN_ID = REMOTE_TASK_LOG.settings.conn_id
    except TradewindLoggingError as error:
        log.error("Task logs stay local: %s", error)  # noqa: TRY400 - the message says all; a trace adds nothing
    else:
        if sys.argv[1:3] == ["celery", "worker"]:
            from tradewind.logging.listener import prepare_celery_worker

            prepare_celery_worker()
