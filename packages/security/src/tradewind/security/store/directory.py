# SPDX-License-Identifier: Apache-2.0
"""What authorization reads: the whole of what was written, in memory, at most five seconds old."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from sqlalchemy import or_, select

from tradewind.security.exceptions import StoreUnavailableError
from tradewind.security.store import models
from tradewind.security.store.periodic import Periodic
from tradewind.security.store.records import binding_record, token_record
from tradewind.security.store.transaction import DIRECTORIES, generation, transaction, utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from tradewind.security.policy.schema import Binding
    from tradewind.security.store.records import TokenRecord

__all__ = ["Directory", "Snapshot"]

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 1.0
_CACHED_TOKENS = 10_000


@dataclass(frozen=True)
class Snapshot:
    """What the database says about access, at one moment.

    Args:
        generation: Changes with every change of the rest.
        bindings: Bindings of the database.
        binding_ids: The id of each binding, in the same order.
        teams: The teams of each user who is in one.
        disabled: Ids of users and services who may do nothing.
        revoked_sessions: Ids of sessions that were revoked before their end.
        local: Ids of users with a password here, and of service accounts.
    """

    generation: int = 0
    bindings: tuple[Binding, ...] = ()
    binding_ids: tuple[int, ...] = ()
    teams: Mapping[str, frozenset[str]] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()
    revoked_sessions: frozenset[str] = frozenset()
    local: frozenset[str] = frozenset()


class Directory:
    """Keeps a snapshot of the database in memory.

    A daemon thread asks for the generation and reads everything when it has changed, so that a change in
    one process is seen by the others. If no check succeeded for five seconds, whoever asks checks, and gets
    an error rather than an old answer.

    Args:
        poll_seconds: How often the thread asks.
        stale_seconds: How old the last check may be.
    """

    def __init__(self, poll_seconds: float = 2.0, stale_seconds: float = 5.0) -> None:
        self.poll_seconds = poll_seconds
        self.stale_seconds = stale_seconds
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._checked_at = float("-inf")
        self._failed_at = float("-inf")
        self._outage = False
        self._tokens: tuple[int, dict[str, TokenRecord]] = (-1, {})
        self._reported: frozenset[int] = frozenset()
        self._poller = Periodic("tradewind-security-directory", poll_seconds, self._poll, in_child=self._in_child)
        DIRECTORIES.add(self)

    def snapshot(self) -> Snapshot:
        """Give what is known, with no query unless the last check is older than five seconds.

        Raises:
            StoreUnavailableError: It is older, and the database does not answer.
        """
        checked_at = self._checked_at
        snapshot = self._snapshot
        if snapshot is not None and time.monotonic() - checked_at <= self.stale_seconds:
            return snapshot
        # A check may hang for as long as the network does; who asks is refused rather than hung.
        self._refuse_after_failure()
        if not self._lock.acquire(timeout=self.stale_seconds if snapshot is None else _PATIENCE_SECONDS):
            self._failed_at = time.monotonic()
            raise StoreUnavailableError("the metadata database does not answer")
        try:
            # Others waited for the lock too: one check answers all of them, and one failure refuses them.
            if self._snapshot is not None and time.monotonic() - self._checked_at <= self.stale_seconds:
                return self._snapshot
            self._refuse_after_failure()
            return self._check()
        finally:
            self._lock.release()

    def refresh(self) -> Snapshot:
        """Ask the database now, so that what is committed is seen.

        Raises:
            StoreUnavailableError: It does not answer.
        """
        with self._lock:
            return self._check()

    def token(self, token_id: str) -> TokenRecord | None:
        """Give a token, from memory if it was asked for since the last change.

        Args:
            token_id: The part of the token that is no secret.

        Raises:
            StoreUnavailableError: The database does not answer.
        """
        current = self.snapshot().generation
        known_at, tokens = self._tokens
        if known_at != current:
            tokens = {}
            self._tokens = (current, tokens)
        if found := tokens.get(token_id):
            return found
        with transaction() as session:
            row = session.get(models.ApiToken, token_id)
            if row is None:
                return None
            try:
                record = token_record(row)
            except ValueError as error:
                log.error("API token %s is corrupt and is refused (%s)", token_id, type(error).__name__)  # noqa: TRY400
                return None
        if len(tokens) >= _CACHED_TOKENS:
            tokens.clear()
        tokens[token_id] = record
        return record

    def knows_token(self, token_id: str) -> bool:
        """Tell whether `token` answers from memory.

        Args:
            token_id: The part of the token that is no secret.
        """
        known_at, tokens = self._tokens
        snapshot = self._snapshot
        fresh = time.monotonic() - self._checked_at <= self.stale_seconds
        return fresh and snapshot is not None and known_at == snapshot.generation and token_id in tokens

    def close(self) -> None:
        """End the thread; the directory goes on answering, with a check every five seconds."""
        self._poller.close()

    def _refuse_after_failure(self) -> None:
        if time.monotonic() - self._failed_at < _PATIENCE_SECONDS:
            raise StoreUnavailableError("the metadata database did not answer a moment ago")

    def _poll(self) -> None:
        try:
            self.refresh()
        except StoreUnavailableError as error:
            if not self._outage:
                log.warning("Who may do what can't be read: %s. Requests are refused until it can.", error)
            self._outage = True
        else:
            if self._outage:
                log.info("Who may do what can be read again")
            self._outage = False

    def _check(self) -> Snapshot:
        self._poller.start()
        started = time.monotonic()
        try:
            with transaction() as session:
                current = generation(session)
                snapshot = self._snapshot
                if snapshot is None or snapshot.generation != current:
                    snapshot = self._load(session, current)
        except Exception:
            self._failed_at = time.monotonic()
            raise
        self._snapshot = snapshot
        self._checked_at = started
        return snapshot

    def _load(self, session: Session, current: int) -> Snapshot:
        bindings, binding_ids, corrupt = [], [], set()
        for row in session.scalars(select(models.Binding).order_by(models.Binding.id)):
            try:
                bindings.append(binding_record(row).binding)
            except ValueError as error:
                corrupt.add(row.id)
                if row.id not in self._reported:
                    message = (
                        "Binding %s is corrupt and grants nothing (%s); delete it: airflow tradewind-auth bindings"
                    )
                    log.error(message, row.id, type(error).__name__)  # noqa: TRY400
            else:
                binding_ids.append(row.id)
        self._reported = frozenset(corrupt)
        teams: defaultdict[str, set[str]] = defaultdict(set)
        for team, user_id in session.execute(select(models.TeamMember.team, models.TeamMember.user_id)):
            teams[user_id].add(team)
        revoked = select(models.Session.id).where(
            models.Session.revoked_at.is_not(None), models.Session.ends_at > utc_now()
        )
        local = select(models.User.id).where(or_(models.User.password_hash.is_not(None), models.User.kind == "service"))
        return Snapshot(
            generation=current,
            bindings=tuple(bindings),
            binding_ids=tuple(binding_ids),
            teams=MappingProxyType({user_id: frozenset(names) for user_id, names in teams.items()}),
            disabled=frozenset(session.scalars(select(models.User.id).where(models.User.disabled))),
            revoked_sessions=frozenset(session.scalars(revoked)),
            local=frozenset(session.scalars(local)),
        )

    def _in_child(self) -> None:
        self._lock = threading.Lock()
