# SPDX-License-Identifier: Apache-2.0
"""A set of ids that stays SQL until somebody iterates it.

Airflow filters list pages with `column.in_(ids)`, and `get_authorized_dag_ids` normally reads every id first.
SQLAlchemy renders an object with `__clause_element__` as a sub-select instead, so the database does it all.
Not a subclass of `set`: CPython's set methods read a subclass's own storage, which would be empty.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Select

__all__ = ["LazyIds"]


class LazyIds(AbstractSet[str]):
    """The ids that a query selects.

    Args:
        query: Selects one column of ids.
        fetch: Runs the query; called once, by the first operation that needs the ids themselves.
    """

    __slots__ = ("_fetch", "_ids", "_query")

    def __init__(self, query: Select[tuple[str]], fetch: Callable[[Select[tuple[str]]], Iterable[str]]) -> None:
        self._query = query
        self._fetch = fetch
        self._ids: frozenset[str] | None = None

    def __clause_element__(self) -> Select[tuple[str]]:
        return self._query

    @property
    def ids(self) -> frozenset[str]:
        """The ids themselves."""
        if self._ids is None:
            self._ids = frozenset(self._fetch(self._query))
        return self._ids

    @property
    def is_materialized(self) -> bool:
        """Whether the query has run."""
        return self._ids is not None

    def __bool__(self) -> bool:
        # Airflow writes `ids or set()`: an empty sub-select gives the same rows without asking first.
        return True

    def __contains__(self, value: object) -> bool:
        return value in self.ids

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __hash__(self) -> int:
        return hash(self.ids)

    def __repr__(self) -> str:
        return f"LazyIds({sorted(self._ids)})" if self._ids is not None else f"LazyIds({self._query})"

    @classmethod
    def _from_iterable(cls, it: Iterable[str]) -> frozenset[str]:  # type: ignore[override] # results are plain sets
        return frozenset(it)

    def issubset(self, other: Iterable[object]) -> bool:
        """As `set.issubset`."""
        return self.ids.issubset(other)

    def issuperset(self, other: Iterable[object]) -> bool:
        """As `set.issuperset`."""
        return self.ids.issuperset(other)

    def intersection(self, *others: Iterable[object]) -> frozenset[str]:
        """As `set.intersection`."""
        return self.ids.intersection(*others)

    def difference(self, *others: Iterable[object]) -> frozenset[str]:
        """As `set.difference`."""
        return self.ids.difference(*others)

    def union(self, *others: Iterable[str]) -> frozenset[str]:
        """As `set.union`."""
        return self.ids.union(*others)

    def copy(self) -> frozenset[str]:
        """As `set.copy`."""
        return self.ids
