# SPDX-License-Identifier: Apache-2.0
"""The tables of 0.1.0.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from airflow.models.base import StringID
from airflow.models.base import metadata as airflow_metadata
from airflow.utils.sqlalchemy import UtcDateTime
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SCHEMA = airflow_metadata.schema


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "tw_user",
        sa.Column("id", StringID(), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("name", sa.String(250)),
        sa.Column("password_hash", sa.String(250)),
        sa.Column("must_change_password", sa.Boolean(), nullable=False),
        sa.Column("failed_logins", sa.Integer(), nullable=False),
        sa.Column("locked_until", UtcDateTime()),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("last_login_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name="tw_user_pkey"),
        schema=_SCHEMA,
    )
    op.create_table(
        "tw_team",
        sa.Column("name", StringID(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="tw_team_pkey"),
        schema=_SCHEMA,
    )
    team = f"{_SCHEMA}.tw_team.name" if _SCHEMA else "tw_team.name"
    op.create_table(
        "tw_team_member",
        sa.Column("team", StringID(), nullable=False),
        sa.Column("user_id", StringID(), nullable=False),
        sa.PrimaryKeyConstraint("team", "user_id", name="tw_team_member_pkey"),
        sa.ForeignKeyConstraint(["team"], [team], name="tw_team_member_team_fkey", ondelete="CASCADE"),
        schema=_SCHEMA,
    )
    op.create_table(
        "tw_binding",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("subject_kind", sa.String(10), nullable=False),
        sa.Column("subject", StringID(), nullable=False),
        sa.Column("role", sa.String(250), nullable=False),
        sa.Column("scope", sa.String(250), nullable=False),
        sa.Column("selectors", sa.Text(), nullable=False),
        sa.Column("created_by", StringID(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="tw_binding_pkey"),
        schema=_SCHEMA,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tw_api_token",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("name", sa.String(250), nullable=False),
        sa.Column("owner", StringID(), nullable=False),
        sa.Column("owner_kind", sa.String(10), nullable=False),
        sa.Column("groups", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("scopes", sa.Text()),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("last_used_at", UtcDateTime()),
        sa.Column("rotated_from", sa.String(16)),
        sa.Column("revoked_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name="tw_api_token_pkey"),
        schema=_SCHEMA,
    )
    op.create_table(
        "tw_session",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("user_id", StringID(), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("name", sa.String(250)),
        sa.Column("issuer", sa.String(64)),
        sa.Column("idp_session", StringID()),
        sa.Column("idp_subject", StringID()),
        sa.Column("groups", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("ends_at", UtcDateTime(), nullable=False),
        sa.Column("last_seen_at", UtcDateTime(), nullable=False),
        sa.Column("ip", sa.String(64)),
        sa.Column("user_agent", sa.String(250)),
        sa.Column("revoked_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name="tw_session_pkey"),
        schema=_SCHEMA,
    )
    op.create_table(
        "tw_audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("event", sa.String(100), nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("subject", sa.String(250)),
        sa.Column("line", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="tw_audit_pkey"),
        schema=_SCHEMA,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tw_generation",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="tw_generation_pkey"),
        schema=_SCHEMA,
    )
    for table, column in _INDEXES:
        op.create_index(f"idx_{table}_{column}", table, [column], schema=_SCHEMA)


def downgrade() -> None:
    """Drop all tables."""
    for table in (
        "tw_generation",
        "tw_audit",
        "tw_session",
        "tw_api_token",
        "tw_binding",
        "tw_team_member",
        "tw_team",
        "tw_user",
    ):
        op.drop_table(table, schema=_SCHEMA)


_INDEXES = (
    ("tw_binding", "subject"),
    ("tw_api_token", "owner"),
    ("tw_session", "user_id"),
    ("tw_session", "ends_at"),
    ("tw_session", "idp_subject"),
    ("tw_session", "idp_session"),
    ("tw_audit", "at"),
    ("tw_audit", "subject"),
)
