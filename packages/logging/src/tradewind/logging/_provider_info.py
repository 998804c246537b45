# SPDX-License-Identifier: Apache-2.0
"""What Airflow's provider discovery reads; imports nothing, because it runs in every Airflow process."""

from __future__ import annotations


def _option(description: str, kind: str, default: str, example: str | None = None) -> dict[str, object]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": example,
        "default": default,
    }


def get_provider_info() -> dict[str, object]:
    """Describe this distribution to Airflow (schema: airflow/provider_info.schema.json)."""
    return {
        "package-name": "tradewind-logging",
        "name": "Tradewind Logging",
        "description": "Task logs recorded directly to cloud storage while the task runs.",
        "cli": ["tradewind.logging.cli.get_cli_commands"],
        # Schemes that another provider claims stay its own; [logging] logging_config_class takes them over.
        "remote-logging": [
            {"classpath": "tradewind.logging.remote.TradewindRemoteLogIO", "scheme": "file"},
            {"classpath": "tradewind.logging.remote.TradewindRemoteLogIO", "scheme": "memory"},
        ],
        "config": {
            "tradewind_logging": {
                "description": "Task logs, recorded while the task runs.",
                "options": {
                    "flush_interval_seconds": _option("Longest time until a new line is sent.", "float", "5"),
                    "first_flush_seconds": _option("The same for a task's first line.", "float", "1"),
                    "part_bytes": _option("Size from which on an object is not replaced.", "integer", "4194304"),
                    "economy_after_seconds": _option("Age of a task that is sent less often.", "float", "600"),
                    "economy_interval_seconds": _option("Flush interval of an old task.", "float", "10"),
                    "max_puts_per_second": _option("Budget of one process.", "float", "50"),
                    "upload_timeout_seconds": _option(
                        "Longest delay at a task's end while the storage makes no progress.", "float", "10"
                    ),
                    "storage_options": _option(
                        "Arguments of the fsspec file system, as JSON.", "string", "", '{"anon": true}'
                    )
                    | {"sensitive": True},
                    "include_trigger_logs": _option("Record triggers' logs too.", "boolean", "True"),
                    "read_block_bytes": _option("Bytes of one read.", "integer", "4194304"),
                    "read_cache_bytes": _option(
                        "Disk that keeps what was read of running logs; 0 for none.", "integer", "67108864"
                    ),
                    "retention_days": _option("Age at which retention deletes logs; 0 never.", "integer", "0"),
                    "sweep_on_start": _option("A worker sweeps when it starts.", "boolean", "True"),
                },
            }
        },
    }
