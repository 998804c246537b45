# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from sqlalchemy import column, select, table

from tradewind.security.lazyset import LazyIds

DAG = table("dag", column("dag_id"))


def lazy(*ids: str) -> LazyIds:
    return LazyIds(select(DAG.c.dag_id), lambda _: ids)


def untouched() -> LazyIds:
    def fail(_: object) -> list[str]:
        raise AssertionError("the query ran")

    return LazyIds(select(DAG.c.dag_id), fail)


def test_sqlalchemy_renders_it_as_a_sub_select_without_running_it() -> None:
    run = table("dag_run", column("dag_id"))
    found = str(select(run).where(run.c.dag_id.in_(untouched() or set())))
    assert "IN (SELECT dag.dag_id" in found


def test_airflows_own_filters_render_it_without_running_it() -> None:
    # This fails when Airflow stops to hand what get_authorized_dag_ids gave to SQLAlchemy.
    import inspect

    from airflow.api_fastapi.core_api import security
    from sqlalchemy import select as make

    filters = [
        value
        for name, value in inspect.getmembers(security, inspect.isclass)
        if name.startswith("Permitted") and name.endswith("Filter")
    ]
    assert len(filters) >= 13
    for one in filters:
        text = str(one(untouched()).to_orm(make(column("x"))))
        assert "IN (SELECT dag.dag_id" in text, one


def test_it_is_a_set_in_everything_that_airflow_does_with_it() -> None:
    ids = lazy("a", "b")
    assert {"a"}.issubset(ids)
    assert not {"c"}.issubset(ids)
    assert {"a", "c"} & ids == {"a"} == ids & {"a", "c"}
    assert {"a", "c"} - ids == {"c"}
    assert {"c"} | ids == {"a", "b", "c"} == ids | {"c"}
    assert {"a"} < ids
    assert {"a"} <= ids
    assert ids >= {"a"}
    assert ids == {"a", "b"}
    assert {"a", "b"} == ids
    assert ids != {"a"}
    assert ids.issubset({"a", "b", "c"})
    assert ids.issuperset(["a"])
    assert ids.intersection(["a"], {"a", "b"}) == {"a"}
    assert ids.difference(["a"]) == {"b"}
    assert ids.union(["z"]) == {"a", "b", "z"}
    assert ids.isdisjoint({"z"})
    assert sorted(ids) == ["a", "b"]
    assert len(ids) == 2
    assert "a" in ids
    assert set(ids) == ids.copy()
    assert {"a", "z"}.intersection(ids) == {"a"}
    assert {"a", "b"}.issuperset(ids)


def test_an_empty_one_is_still_given_to_sqlalchemy() -> None:
    assert lazy()
    assert len(lazy()) == 0


def test_the_query_runs_once() -> None:
    calls = []

    def fetch(_: object) -> list[str]:
        calls.append(1)
        return ["a"]

    ids = LazyIds(select(DAG.c.dag_id), fetch)
    assert not ids.is_materialized
    assert "a" in ids
    assert list(ids) == ["a"]
    assert calls == [1]


@pytest.mark.parametrize("name", ["add", "discard", "update"])
def test_it_can_not_be_changed(name: str) -> None:
    assert not hasattr(lazy(), name)
