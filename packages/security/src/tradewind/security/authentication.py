# SPDX-License-Identifier: Apache-2.0
"""From a credential to a principal: our session tokens, API tokens, and Bearer tokens of trusted issuers."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jwt
from fastapi import HTTPException, status

from tradewind.security.exceptions import CredentialError, NotFoundError
from tradewind.security.identity.claims import could_be_chosen
from tradewind.security.principal import Principal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tradewind.security.audit import AuditLog
    from tradewind.security.identity.directory import Directory as Providers
    from tradewind.security.policy.loader import Policy, PolicyLoader
    from tradewind.security.policy.schema import Issuer
    from tradewind.security.store.directory import Directory

__all__ = ["Authenticator"]

MOST_CHARS = 16 * 1024
REMEMBERED = 10_000
REMEMBERED_SECONDS = 60.0
RENEW_AFTER = 0.1
PREFIX = "twr_"


class Authenticator:
    """Authenticates every credential that reaches this API server.

    Args:
        policies: Gives the policy: its issuers, and how long sessions last.
        directory: Gives API tokens, ended sessions and disabled users.
        validate: Verifies one of Airflow's own tokens and gives its claims.
    """

    def __init__(
        self,
        *,
        policies: PolicyLoader,
        directory: Directory,
        validate: Callable[[str], Awaitable[dict[str, Any]]],
    ) -> None:
        self._policies = policies
        self._directory = directory
        self._validate = validate
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()
        self._providers: tuple[Policy, Providers] | None = None

    @property
    def providers(self) -> Providers:
        """The identity providers of the policy."""
        from tradewind.security.identity.directory import Directory as Providers

        policy = self._policies.current()
        found = self._providers
        if found is None or found[0] is not policy:
            found = (policy, Providers(policy.file.issuers, found[1] if found else None))
            self._providers = found
        return found[1]

    async def authenticate(self, token: str, audit: AuditLog) -> Principal:
        """Give whom a credential is of.

        Args:
            token: The credential.
            audit: Where a refusal is written.

        Raises:
            HTTPException: 401, the same for every credential that is not accepted.
            StoreUnavailableError: The database does not answer.
        """
        try:
            return await self.principal(token)
        except CredentialError as error:
            audit.record(
                "authentication",
                subject=error.subject,
                subject_type=None,
                outcome="denied",
                reason=error.reason,
                organization=self._policies.current().file.organization,
                deployment=self._policies.current().file.deployment,
            )
            raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Not authenticated") from None

    async def principal(self, token: str) -> Principal:
        """Give whom a credential is of.

        Args:
            token: The credential.

        Raises:
            CredentialError: It is not accepted.
            StoreUnavailableError: The database does not answer.
        """
        if len(token) > MOST_CHARS:
            raise CredentialError("oversized")
        if token.startswith(PREFIX):
            return await self._api_token(token)
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        principal = self._recall(digest)
        if principal is None:
            bearer = self.providers.bearer
            issuer = bearer.trusts(token)
            if issuer is not None:
                # It remembers what it verified by itself.
                return self._foreign(issuer, await bearer.verify(token))
            principal, expires = await self._session_token(token)
            self._remember(digest, principal, expires)
        return self._allowed(principal)

    def _foreign(self, issuer: Issuer, principal: Principal) -> Principal:
        chosen = principal.kind == "user" and could_be_chosen(issuer, principal.id)
        if chosen and principal.id in self._directory.snapshot().local:
            raise CredentialError("name_of_a_local_user", principal.id)
        return self._allowed(principal)

    def _allowed(self, principal: Principal) -> Principal:
        snapshot = self._directory.snapshot()
        if principal.id in snapshot.disabled:
            raise CredentialError("disabled", principal.id)
        if principal.session is not None and principal.session in snapshot.revoked_sessions:
            raise CredentialError("session_ended", principal.id)
        if principal.ends_at is not None and time.time() >= principal.ends_at:
            raise CredentialError("expired", principal.id)
        return principal

    async def _api_token(self, token: str) -> Principal:
        from tradewind.security.store import tokens

        def look() -> Principal:
            record = tokens.verify(token, self._directory)
            return Principal(
                record.owner,
                kind=record.owner_kind,
                groups=record.groups,
                token=record.id,
                scopes=record.scopes,
                ends_at=record.expires_at.timestamp(),
            )

        if self._directory.knows_token(tokens.parse(token).id):
            return look()
        # The first time after a change it asks the database.
        return await asyncio.to_thread(look)

    async def _session_token(self, token: str) -> tuple[Principal, float]:
        try:
            claims = await self._validate(token)
        except jwt.ExpiredSignatureError:
            raise CredentialError("expired") from None
        except jwt.InvalidAudienceError:
            raise CredentialError("wrong_audience") from None
        except jwt.InvalidTokenError as error:
            raise CredentialError(f"invalid_{type(error).__name__.removesuffix('Error').lower()}") from None
        except (ValueError, TypeError, KeyError):
            raise CredentialError("malformed") from None
        principal = self.principal_of(claims)
        if principal.session is None:
            raise CredentialError("no_session", principal.id)
        return await asyncio.to_thread(self._with_session, principal, principal.session), float(claims["exp"])

    def _with_session(self, principal: Principal, session_id: str) -> Principal:
        from tradewind.security.store import sessions

        try:
            record = sessions.get(session_id)
        except NotFoundError:
            raise CredentialError("session_unknown", principal.id) from None
        if record.user_id != principal.id:
            raise CredentialError("session_of_another", principal.id)
        if record.revoked_at is not None:
            raise CredentialError("session_ended", principal.id)
        return replace(principal, groups=record.groups, name=record.name, ends_at=record.ends_at.timestamp())

    @staticmethod
    def claims_of(principal: Principal) -> dict[str, Any]:
        """Give the claims of a session token: who and which session, nothing of what it may do."""
        return {"sub": principal.id, "kind": principal.kind, "sid": principal.session}

    @staticmethod
    def principal_of(claims: dict[str, Any]) -> Principal:
        """Give the principal of a session token's claims.

        Raises:
            CredentialError: A claim is missing.
        """
        subject, session, kind = claims.get("sub"), claims.get("sid"), claims.get("kind", "user")
        if not isinstance(subject, str) or not subject or kind not in {"user", "service"}:
            raise CredentialError("missing_claim")
        issued = claims.get("iat")
        return Principal(
            subject,
            kind=kind,
            session=session if isinstance(session, str) and session else None,
            issued_at=float(issued) if isinstance(issued, (int, float)) else None,
        )

    def lifetime_of(self, principal: Principal, wished: float) -> float:
        """Give how long a new session token lives, in seconds.

        Args:
            principal: Whose.
            wished: Wished lifetime in seconds.

        Raises:
            HTTPException: It is not for this principal to have one.
        """
        if principal.session is None or principal.ends_at is None:
            raise HTTPException(status.HTTP_403_FORBIDDEN, "API tokens and workloads can't be exchanged for a session")
        left = principal.ends_at - time.time()
        if left < 1:
            raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Not authenticated")
        if principal.renewing:
            wished = min(wished, self._policies.current().file.session.idle)
        return min(wished, left)

    def renewed(self, principal: Principal) -> Principal | None:
        """Give a principal whose cookie is old enough to be renewed, or None; called for each request with a cookie."""
        from tradewind.security.store import usage
        from tradewind.security.store.transaction import utc_now

        if principal.session is None or principal.issued_at is None or principal.ends_at is None:
            return None
        now = time.time()
        usage.session_seen(principal.session, utc_now())
        idle = self._policies.current().file.session.idle
        if now - principal.issued_at < idle * RENEW_AFTER or principal.ends_at - now < 1:
            return None
        return replace(principal, renewing=True)

    def revoke(self, token: str, audit: AuditLog) -> None:
        """End the session that a token is of.

        Args:
            token: A session token; everything else is left alone.
            audit: Where the end is written.
        """
        from tradewind.security.store import sessions

        try:
            principal, _ = asyncio.run(self._session_token(token))
        except CredentialError:
            return
        if principal.session is None:
            return
        sessions.revoke(principal.session)
        audit.record("logout", subject=principal.id, subject_type=principal.kind, outcome="success")

    def _recall(self, digest: bytes) -> Principal | None:
        with self._lock:
            until, principal = self._known.get(digest, (0.0, None))
            if principal is not None and time.time() >= until:
                del self._known[digest]
                return None
            return principal

    def _remember(self, digest: bytes, principal: Principal, expires: float) -> None:
        until = min(time.time() + REMEMBERED_SECONDS, expires, principal.ends_at or 0.0)
        with self._lock:
            self._known[digest] = (until, principal)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
