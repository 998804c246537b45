# SPDX-License-Identifier: Apache-2.0
"""`[core] auth_manager = tradewind.security.auth_manager.TradewindAuthManager`.

Translates Airflow's questions into cells and answers them from compiled rules (`policy.compiler`) without I/O.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.app import AUTH_MANAGER_FASTAPI_APP_PREFIX
from airflow.api_fastapi.auth.managers.base_auth_manager import BaseAuthManager
from airflow.api_fastapi.common.types import ExtraMenuItem
from airflow.configuration import conf

from tradewind.security.authentication import Authenticator
from tradewind.security.authorization import DAG_BITS, MENU_BITS, VIEW_BITS, Rulebook, bits
from tradewind.security.dag_index import DagIndex
from tradewind.security.lazyset import LazyIds
from tradewind.security.policy.cells import BITS
from tradewind.security.policy.loader import PolicyLoader
from tradewind.security.principal import Principal
from tradewind.security.refusals import refuse
from tradewind.security.settings import SecuritySettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
    from airflow.api_fastapi.auth.managers.models.batch_apis import (
        IsAuthorizedConnectionRequest,
        IsAuthorizedDagRequest,
        IsAuthorizedPoolRequest,
        IsAuthorizedVariableRequest,
    )
    from airflow.api_fastapi.auth.managers.models.resource_details import (
        AccessView,
        AssetAliasDetails,
        AssetDetails,
        ConfigurationDetails,
        ConnectionDetails,
        DagAccessEntity,
        DagDetails,
        PoolDetails,
        TeamDetails,
        VariableDetails,
    )
    from airflow.api_fastapi.common.types import MenuItem
    from fastapi import FastAPI
    from sqlalchemy import Select

    from tradewind.security.audit import AuditLog
    from tradewind.security.store.directory import Directory
    from tradewind.security.store.periodic import Periodic

__all__ = ["TradewindAuthManager"]

log = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 3600.0

_CONNECTION, _VARIABLE, _POOL = bits("connection"), bits("variable"), bits("pool")
_ASSET, _ASSET_ALIAS = bits("asset"), bits("asset_alias")
_CONFIGURATION, _TEAM, _CUSTOM_VIEW = bits("configuration"), bits("team"), bits("custom_view")
_ANSWER_FOR_OTHERS = BITS["hitl.assigned_override:PUT"]
_NO_BITS: dict[str, int] = {}


class TradewindAuthManager(BaseAuthManager[Principal]):
    """Airflow's auth manager with organization, workspace, deployment, team and Dag roles.

    Constructing it touches neither a file nor the database: `airflow db migrate` does so before the tables exist.
    """

    @cached_property
    def settings(self) -> SecuritySettings:
        """The settings."""
        return SecuritySettings.from_config()

    @cached_property
    def policies(self) -> PolicyLoader:
        """The policy file."""
        return PolicyLoader(self.settings.policy_file, self.settings.reload_seconds)

    @cached_property
    def directory(self) -> Directory:
        """The database's bindings, teams and tokens, in memory."""
        from tradewind.security.store.directory import Directory

        return Directory(self.settings.poll_seconds)

    @cached_property
    def audit(self) -> AuditLog:
        """Where denials, logins and changes are written."""
        from tradewind.security.audit import AuditLog

        return AuditLog(self.settings.audit)

    @cached_property
    def rules(self) -> Rulebook:
        """What each principal may do."""
        return Rulebook(self.policies, self.directory)

    @cached_property
    def dags(self) -> DagIndex:
        """Facts about Dags."""
        return DagIndex(self.settings.reload_seconds)

    @cached_property
    def authenticator(self) -> Authenticator:
        """From credentials to principals."""
        return Authenticator(
            policies=self.policies,
            directory=self.directory,
            validate=lambda token: self._get_token_validator().avalidated_claims(token),
        )

    def init(self) -> None:
        """Prepare this API server.

        Raises:
            PolicyError: The policy can't be used; nobody is let in.
            SettingsError: A setting is malformed.
            StoreUnavailableError: The tables are missing, or the database does not answer.
        """
        policy = self.policies.current()
        super().init()
        self.directory.snapshot()
        log.info("Roles and bindings are from %s and the database", policy.source or "the built-in policy")
        self._housekeeping.start()
        if self.settings.create_admin:
            from tradewind.security.first_admin import ensure_admin

            ensure_admin(policy.file.organization, self.settings.admin_password, self.settings.admin_password_file)

    @cached_property
    def _housekeeping(self) -> Periodic:
        from tradewind.security.store.periodic import Periodic

        return Periodic("tradewind-security-housekeeping", HOUSEKEEPING_SECONDS, self._clean)

    def _clean(self) -> None:
        from tradewind.security import audit
        from tradewind.security.store import sessions

        sessions.purge()
        if self.settings.audit_days:
            audit.purge(self.settings.audit_days)

    def _get_teams(self) -> set[str]:
        return {
            binding.scope.partition("/")[2]
            for _, binding in self.policies.current().bindings
            if binding.scope.startswith("team/")
        }

    # Identity

    async def get_user_from_token(self, token: str) -> Principal:
        """Authenticate a session token, an API token or a trusted issuer's token.

        Args:
            token: What came as Bearer credential or in the session's cookie.

        Raises:
            HTTPException: 401, always the same; the reason is in the audit log.
        """
        return await self.authenticator.authenticate(token, self.audit)

    def serialize_user(self, user: Principal) -> dict[str, Any]:
        """Give the claims of a session token; roles and groups are not among them."""
        return self.authenticator.claims_of(user)

    def deserialize_user(self, token: dict[str, Any]) -> Principal:
        """Give the principal of a session token's claims."""
        return self.authenticator.principal_of(token)

    def generate_jwt(self, user: Principal, *, expiration_time_in_seconds: int | None = None) -> str:
        """Make a session token that ends no later than its session.

        Args:
            user: Whose.
            expiration_time_in_seconds: Wished lifetime in seconds.

        Raises:
            HTTPException: 403 for an API token or a workload, which can't be exchanged.
        """
        wished = expiration_time_in_seconds or conf.getint("api_auth", "jwt_expiration_time")
        lifetime = self.authenticator.lifetime_of(user, wished)
        return self._get_token_signer().generate(self.serialize_user(user), valid_for=lifetime)

    def refresh_user(self, *, user: Principal) -> Principal | None:
        """Give the user anew when its cookie should be renewed."""
        return self.authenticator.renewed(user)

    def revoke_token(self, token: str) -> None:
        """End the session that a token is of; an API token is revoked by its owner, not by logging out."""
        self.authenticator.revoke(token, self.audit)

    def get_url_login(self, **kwargs: Any) -> str:
        """Give the login page's path."""
        from urllib.parse import urlencode

        url = f"{AUTH_MANAGER_FASTAPI_APP_PREFIX}/login"
        next_url = kwargs.get("next_url")
        return f"{url}?{urlencode({'next': next_url})}" if next_url else url

    def get_url_logout(self) -> str | None:
        """Give the path that clears the cookie and ends the identity provider's session."""
        return f"{AUTH_MANAGER_FASTAPI_APP_PREFIX}/logout"

    @staticmethod
    def get_db_manager() -> str | None:
        """Give the class that makes our tables, wherever this auth manager is the configured one."""
        return "tradewind.security.store.db_manager.SecurityDBManager"

    def get_fastapi_app(self) -> FastAPI | None:
        """Give the app that Airflow mounts at `/auth`."""
        from tradewind.security.api.app import create_app

        return create_app(self)

    def get_fastapi_middlewares(self) -> list[tuple[Any, dict[str, Any]]]:
        """Give the middleware that guards plugins and documentation, and audits denials."""
        from tradewind.security.middleware import GuardMiddleware

        return [(GuardMiddleware, {"manager": self})]

    def get_extra_menu_items(self, *, user: Principal) -> list[ExtraMenuItem]:
        """Give the link to the account page."""
        return [ExtraMenuItem(text="Account", href=f"{AUTH_MANAGER_FASTAPI_APP_PREFIX}/account")]

    # One question

    def is_authorized_configuration(
        self,
        *,
        method: ResourceMethod,
        user: Principal,
        details: ConfigurationDetails | None = None,
        **_: Any,
    ) -> bool:
        """Answer for the configuration."""
        return self._base(user, _CONFIGURATION.get(method, 0), "configuration", method)

    def is_authorized_connection(
        self, *, method: ResourceMethod, user: Principal, details: ConnectionDetails | None = None, **_: Any
    ) -> bool:
        """Answer for a connection, or for all."""
        name, team = (details.conn_id, details.team_name) if details else (None, None)
        return self._resource("connections", _CONNECTION, method, user, name, team)

    def is_authorized_variable(
        self, *, method: ResourceMethod, user: Principal, details: VariableDetails | None = None, **_: Any
    ) -> bool:
        """Answer for a variable, or for all."""
        name, team = (details.key, details.team_name) if details else (None, None)
        return self._resource("variables", _VARIABLE, method, user, name, team)

    def is_authorized_pool(
        self, *, method: ResourceMethod, user: Principal, details: PoolDetails | None = None, **_: Any
    ) -> bool:
        """Answer for a pool, or for all."""
        name, team = (details.name, details.team_name) if details else (None, None)
        return self._resource("pools", _POOL, method, user, name, team)

    def is_authorized_dag(
        self,
        *,
        method: ResourceMethod,
        user: Principal,
        access_entity: DagAccessEntity | None = None,
        details: DagDetails | None = None,
        **_: Any,
    ) -> bool:
        """Answer for a Dag, or for all; about the Dag itself, or about what it has."""
        bit = DAG_BITS.get(access_entity and access_entity._value_, _NO_BITS).get(method, 0)
        rules = self.rules.of(user)
        if details is not None and details.id:
            if rules.is_uniform:
                mask = rules.base
            elif rules.needs_facts:
                known = self.dags.current()
                mask = rules.dag(details.id, details.team_name, known.get, known)
            else:
                mask = rules.dag(details.id, details.team_name)
        else:
            mask = rules.without_id if method == "GET" else rules.written_everywhere
        if mask & bit:
            return True
        entity = f".{access_entity.name.lower()}" if access_entity else ""
        refuse(f"dag{entity}:{method}", details.id if details else None)
        return False

    def is_authorized_asset(
        self,
        *,
        method: ResourceMethod,
        user: Principal,
        details: AssetDetails | None = None,
        **_: Any,
    ) -> bool:
        """Answer for assets."""
        return self._base(user, _ASSET.get(method, 0), "asset", method)

    def is_authorized_asset_alias(
        self,
        *,
        method: ResourceMethod,
        user: Principal,
        details: AssetAliasDetails | None = None,
        **_: Any,
    ) -> bool:
        """Answer for asset aliases."""
        return self._base(user, _ASSET_ALIAS.get(method, 0), "asset_alias", method)

    def is_authorized_team(
        self, *, method: ResourceMethod, user: Principal, details: TeamDetails | None = None, **_: Any
    ) -> bool:
        """Answer for a team, or for all."""
        rules = self.rules.of(user)
        mask = rules.base | (rules.team_cells.get(details.name, 0) if details and details.name else 0)
        if mask & _TEAM.get(method, 0):
            return True
        refuse(f"team:{method}", details.name if details else None)
        return False

    def is_authorized_view(self, *, access_view: AccessView, user: Principal, **_: Any) -> bool:
        """Answer for a view."""
        return self._base(user, VIEW_BITS.get(access_view, 0), f"view.{access_view.name.lower()}", "GET")

    def is_authorized_custom_view(
        self, *, method: ResourceMethod | str, resource_name: str, user: Principal, **_: Any
    ) -> bool:
        """Answer for a plugin's view; an action that a plugin invented is denied."""
        return self._base(user, _CUSTOM_VIEW.get(str(method), 0), f"custom_view {resource_name}", str(method))

    def is_authorized_hitl_task(self, *, assigned_users: set[str], user: Principal) -> bool:
        """Tell whether a user may answer a task that is assigned to some."""
        return user.get_id() in assigned_users or bool(self.rules.of(user).base & _ANSWER_FOR_OTHERS)

    def may(self, user: Principal, cell: str) -> bool:
        """Tell whether a user has a cell everywhere in this deployment.

        Args:
            user: Who.
            cell: The cell, for example `tw.audit.read:*`.
        """
        return self._base(user, BITS.get(cell, 0), *cell.rsplit(":", 1))

    def filter_authorized_menu_items(self, menu_items: list[MenuItem], *, user: Principal) -> list[MenuItem]:
        """Give the menu items that a user sees."""
        base = self.rules.of(user).base
        return [item for item in menu_items if base & MENU_BITS.get(item, 0)]

    # Many questions at once

    def batch_is_authorized_dag(self, requests: Sequence[IsAuthorizedDagRequest], *, user: Principal) -> bool:
        """Answer several questions about Dags with one yes or no."""
        return all(
            self.is_authorized_dag(
                method=request["method"],
                access_entity=request.get("access_entity"),
                details=request.get("details"),
                user=user,
            )
            for request in requests
        )

    def batch_is_authorized_connection(
        self, requests: Sequence[IsAuthorizedConnectionRequest], *, user: Principal
    ) -> bool:
        """Answer several questions about connections with one yes or no."""
        return all(
            self.is_authorized_connection(method=request["method"], details=request.get("details"), user=user)
            for request in requests
        )

    def batch_is_authorized_variable(self, requests: Sequence[IsAuthorizedVariableRequest], *, user: Principal) -> bool:
        """Answer several questions about variables with one yes or no."""
        return all(
            self.is_authorized_variable(method=request["method"], details=request.get("details"), user=user)
            for request in requests
        )

    def batch_is_authorized_pool(self, requests: Sequence[IsAuthorizedPoolRequest], *, user: Principal) -> bool:
        """Answer several questions about pools with one yes or no."""
        return all(
            self.is_authorized_pool(method=request["method"], details=request.get("details"), user=user)
            for request in requests
        )

    # Sets

    def filter_authorized_dag_ids(
        self,
        *,
        dag_ids: set[str],
        user: Principal,
        method: ResourceMethod = "GET",
        team_name: str | None = None,
        **_: Any,
    ) -> set[str]:
        """Give those of the Dags that a user may read (or write)."""
        bit = DAG_BITS[None].get(method, 0)
        rules = self.rules.of(user)
        if rules.base & bit and not rules.denied_dags.any & bit:
            return dag_ids
        if not (rules.base | rules.dags.any) & bit:
            return set()
        if not rules.needs_facts:
            return rules.dags_with(bit, dag_ids, team_name)
        known = self.dags.current()
        return rules.dags_with(bit, dag_ids, team_name, known.get, known)

    def get_authorized_dag_ids(  # type: ignore[override] # a set in all that Airflow does with it
        self, *, user: Principal, method: ResourceMethod = "GET", **_: Any
    ) -> LazyIds | set[str]:
        """Give the Dags that a user may read (or write), as SQL."""
        from tradewind.security.selection import dags_where

        bit = DAG_BITS[None].get(method, 0)
        rules = self.rules.of(user)
        if not (rules.base | rules.dags.any) & bit:
            return set()
        return LazyIds(dags_where(rules, bit, _dialect()), _fetch)

    def filter_authorized_connections(
        self,
        *,
        conn_ids: set[str],
        user: Principal,
        method: ResourceMethod = "GET",
        team_name: str | None = None,
        **_: Any,
    ) -> set[str]:
        """Give those of the connections that a user may read (or write)."""
        return self._filter("connections", _CONNECTION, method, user, conn_ids, team_name)

    def filter_authorized_variables(
        self,
        *,
        variable_keys: set[str],
        user: Principal,
        method: ResourceMethod = "GET",
        team_name: str | None = None,
        **_: Any,
    ) -> set[str]:
        """Give those of the variables that a user may read (or write)."""
        return self._filter("variables", _VARIABLE, method, user, variable_keys, team_name)

    def filter_authorized_pools(
        self,
        *,
        pool_names: set[str],
        user: Principal,
        method: ResourceMethod = "GET",
        team_name: str | None = None,
        **_: Any,
    ) -> set[str]:
        """Give those of the pools that a user may read (or write)."""
        return self._filter("pools", _POOL, method, user, pool_names, team_name)

    def filter_authorized_teams(
        self, *, teams_names: set[str], user: Principal, method: ResourceMethod = "GET", **_: Any
    ) -> set[str]:
        """Give those of the teams that a user is in."""
        bit = _TEAM.get(method, 0)
        rules = self.rules.of(user)
        return {name for name in teams_names if (rules.base | rules.team_cells.get(name, 0)) & bit}

    def get_authorized_connections(  # type: ignore[override] # a set in all that Airflow does with it
        self, *, user: Principal, method: ResourceMethod = "GET", **_: Any
    ) -> LazyIds | set[str]:
        """Give the connections that a user may read (or write), as SQL."""
        return self._authorized("connections", _CONNECTION, method, user)

    def get_authorized_variables(  # type: ignore[override] # a set in all that Airflow does with it
        self, *, user: Principal, method: ResourceMethod = "GET", **_: Any
    ) -> LazyIds | set[str]:
        """Give the variables that a user may read (or write), as SQL."""
        return self._authorized("variables", _VARIABLE, method, user)

    def get_authorized_pools(  # type: ignore[override] # a set in all that Airflow does with it
        self, *, user: Principal, method: ResourceMethod = "GET", **_: Any
    ) -> LazyIds | set[str]:
        """Give the pools that a user may read (or write), as SQL."""
        return self._authorized("pools", _POOL, method, user)

    def _base(self, user: Principal, bit: int, resource: str, method: str) -> bool:
        if self.rules.of(user).base & bit:
            return True
        refuse(f"{resource}:{method}", None)
        return False

    def _resource(
        self,
        kind: str,
        cells: dict[str, int],
        method: ResourceMethod,
        user: Principal,
        name: str | None,
        team: str | None,
    ) -> bool:
        rules = self.rules.of(user)
        if name:
            mask = rules.resource(kind, name, team)
        elif team:
            mask = rules.base | rules.team_cells.get(team, 0)
        else:
            mask = rules.any_resource(kind) if method == "GET" else rules.base
        if mask & cells.get(method, 0):
            return True
        refuse(f"{kind.removesuffix('s')}:{method}", name)
        return False

    def _filter(
        self,
        kind: str,
        cells: dict[str, int],
        method: ResourceMethod,
        user: Principal,
        names: set[str],
        team: str | None,
    ) -> set[str]:
        bit = cells.get(method, 0)
        rules = self.rules.of(user)
        if rules.base & bit:
            return names
        if not rules.any_resource(kind) & bit:
            return set()
        return {name for name in names if rules.resource(kind, name, team) & bit}

    def _authorized(
        self, kind: str, cells: dict[str, int], method: ResourceMethod, user: Principal
    ) -> LazyIds | set[str]:
        from tradewind.security.selection import resources_where

        bit = cells.get(method, 0)
        rules = self.rules.of(user)
        if not rules.any_resource(kind) & bit:
            return set()
        return LazyIds(resources_where(rules, kind, bit, _dialect()), _fetch)


def _dialect() -> str:
    from airflow import settings

    return str(settings.get_engine().dialect.name)  # type: ignore[no-untyped-call] # Airflow has no types here


def _fetch(query: Select[tuple[str]]) -> Iterable[str]:
    from airflow.utils.session import create_session

    with create_session(scoped=False) as session:
        return list(session.scalars(query))
