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
        "package-name": "tradewind-security",
        "name": "Tradewind security",
        "description": "The RBAC manager: organization, workspace, deployment and Dag roles, OIDC and API tokens.",
        "auth-managers": ["tradewind.security.auth_manager.TradewindAuthManager"],
        "cli": ["tradewind.security.cli.definition.get_cli_commands"],
        "config": {
            "tradewind_security": {
                "description": "Who may do what, for [core] auth_manager = "
                "tradewind.security.auth_manager.TradewindAuthManager.",
                "options": {
                    "policy_file": _option(
                        "The policy, a YAML file. Without one only what is in the database holds.",
                        "string",
                        "",
                        "/opt/airflow/policy.yaml",
                    ),
                    "reload_seconds": _option("A change of the file holds after this long.", "float", "5"),
                    "poll_seconds": _option("A change in the database holds after this long.", "float", "2"),
                    "audit": _option(
                        "Where audit events go: stdout:, table: and URLs of folders, with commas between them.",
                        "string",
                        "stdout:,table:",
                        "table:,s3://bucket/audit",
                    ),
                    "audit_days": _option(
                        "Age in days at which events of table: are deleted; 0 keeps them.", "integer", "90"
                    ),
                    "create_admin": _option(
                        "Make the local user admin, who owns the organization, where there is no user.",
                        "boolean",
                        "True",
                    ),
                    "admin_password": _option(
                        "Its password, from a secret of the deployment; without one it is random.", "string", ""
                    )
                    | {"sensitive": True},
                    "admin_password_file": _option(
                        "Where a random password is written; AIRFLOW_HOME/tradewind-admin-password by default.",
                        "string",
                        "",
                    ),
                    "security_headers": _option("Send security headers with every answer.", "boolean", "True"),
                },
            }
        },
    }
