# SPDX-License-Identifier: Apache-2.0
"""The tables, all named `tw_*`, beside Airflow's own in its database."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  # SQLAlchemy evaluates the annotations

from airflow.models.base import StringID
from airflow.models.base import metadata as airflow_metadata
from airflow.utils.sqlalchemy import UtcDateTime
from sqlalchemy import BigInteger, ForeignKey, Index, Integer, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "ApiToken",
    "AuditEvent",
    "Base",
    "Binding",
    "Generation",
    "Session",
    "Team",
    "TeamMember",
    "User",
]

ID_LENGTH = 250


class Base(DeclarativeBase):
    """What all tables share."""

    metadata = MetaData(schema=airflow_metadata.schema, naming_convention=airflow_metadata.naming_convention)


class User(Base):
    """A person who can log in with a password, a person who is switched off, or a service account."""

    __tablename__ = "tw_user"

    id: Mapped[str] = mapped_column(StringID(), primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    name: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    password_hash: Mapped[str | None] = mapped_column(String(250))
    must_change_password: Mapped[bool] = mapped_column(default=False)
    failed_logins: Mapped[int] = mapped_column(Integer, default=0)
    locked_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_login_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Team(Base):
    """A named set of users."""

    __tablename__ = "tw_team"

    name: Mapped[str] = mapped_column(StringID(), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class TeamMember(Base):
    """Membership of a user, who may be known to an identity provider only."""

    __tablename__ = "tw_team_member"

    team: Mapped[str] = mapped_column(StringID(), ForeignKey(Team.name, ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(StringID(), primary_key=True)


class Binding(Base):
    """A role that somebody has somewhere."""

    __tablename__ = "tw_binding"
    __table_args__ = (Index("idx_tw_binding_subject", "subject"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    subject_kind: Mapped[str] = mapped_column(String(10))
    subject: Mapped[str] = mapped_column(StringID())
    role: Mapped[str] = mapped_column(String(ID_LENGTH))
    scope: Mapped[str] = mapped_column(String(ID_LENGTH))
    selectors: Mapped[str] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(StringID())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ApiToken(Base):
    """An API token; of its secret only the SHA-256 is here."""

    __tablename__ = "tw_api_token"
    __table_args__ = (Index("idx_tw_api_token_owner", "owner"),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(ID_LENGTH))
    owner: Mapped[str] = mapped_column(StringID())
    owner_kind: Mapped[str] = mapped_column(String(10))
    groups: Mapped[str] = mapped_column(Text)
    secret_hash: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    rotated_from: Mapped[str | None] = mapped_column(String(16))
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Session(Base):
    """A login."""

    __tablename__ = "tw_session"
    __table_args__ = (
        Index("idx_tw_session_user_id", "user_id"),
        Index("idx_tw_session_ends_at", "ends_at"),
        Index("idx_tw_session_idp_subject", "idp_subject"),
        Index("idx_tw_session_idp_session", "idp_session"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(StringID())
    kind: Mapped[str] = mapped_column(String(10))
    name: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    issuer: Mapped[str | None] = mapped_column(String(64))
    idp_session: Mapped[str | None] = mapped_column(StringID())
    idp_subject: Mapped[str | None] = mapped_column(StringID())
    groups: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ends_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ip: Mapped[str | None] = mapped_column(String(64))
    user_agent: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class AuditEvent(Base):
    """A line of the audit log, with what it is searched by."""

    __tablename__ = "tw_audit"
    __table_args__ = (
        Index("idx_tw_audit_at", "at"),
        Index("idx_tw_audit_subject", "subject"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    event: Mapped[str] = mapped_column(String(100))
    outcome: Mapped[str] = mapped_column(String(20))
    subject: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    line: Mapped[str] = mapped_column(Text)


class Generation(Base):
    """One row: how often anything that decides about access was changed."""

    __tablename__ = "tw_generation"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column(BigInteger)
