# SPDX-License-Identifier: Apache-2.0
"""Bundle and tags of every Dag, in memory, for bindings that are limited by them."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from tradewind.security.exceptions import StoreUnavailableError
from tradewind.security.policy.compiler import NO_FACTS, DagFacts

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DagIndex"]

log = logging.getLogger(__name__)


class DagIndex:
    """Facts about Dags, at most `reload_seconds` old whenever they are used.

    Args:
        reload_seconds: See above.
    """

    def __init__(self, reload_seconds: float) -> None:
        self.reload_seconds = reload_seconds
        self._facts: Mapping[str, DagFacts] = {}
        self._loaded = float("-inf")
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def current(self) -> Mapping[str, DagFacts]:
        """Give the facts by Dag id; the same object until something changes.

        Raises:
            StoreUnavailableError: They are too old, and the database does not answer.
        """
        age = time.monotonic() - self._loaded
        if age > self.reload_seconds:
            self._load()
        elif age > self.reload_seconds / 2 and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._load_aside, name="tradewind-dag-index", daemon=True)
            self._thread.start()
        return self._facts

    def of(self, dag_id: str) -> DagFacts:
        """Give one Dag's facts.

        Args:
            dag_id: Its id.

        Raises:
            StoreUnavailableError: As of `current`.
        """
        found = self.current().get(dag_id)
        return NO_FACTS if found is None else found

    def _load_aside(self) -> None:
        try:
            self._load()
        except StoreUnavailableError as error:
            log.warning("%s", error)

    def _load(self) -> None:
        from airflow.models import DagModel
        from airflow.models.dag import DagTag
        from airflow.utils.session import create_session
        from sqlalchemy import select
        from sqlalchemy.exc import SQLAlchemyError

        with self._lock:
            began = time.monotonic()
            if began - self._loaded < self.reload_seconds / 2:
                return
            tags: dict[str, set[str]] = defaultdict(set)
            try:
                with create_session(scoped=False) as session:
                    for dag_id, name in session.execute(select(DagTag.dag_id, DagTag.name)):
                        tags[dag_id].add(name)
                    facts = {
                        dag_id: DagFacts(frozenset(tags.get(dag_id, ())), bundle)
                        for dag_id, bundle in session.execute(select(DagModel.dag_id, DagModel.bundle_name))
                    }
            except SQLAlchemyError as error:
                raise StoreUnavailableError(f"tags and bundles of Dags can't be read: {type(error).__name__}") from None
            if facts != self._facts:
                self._facts = facts
            self._loaded = began
