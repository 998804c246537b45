# SPDX-License-Identifier: Apache-2.0
"""What a list page selects in SQL is what single questions answer, on SQLite and on Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_fixtures import using_database

from tradewind.security.policy.cells import BITS, DAG_CELLS, mask_of
from tradewind.security.policy.compiler import RESOURCES, Compiled, DagFacts, Grant
from tradewind.security.policy.schema import DagSelector, ResourceSelector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.services import Postgres

TAGS = ("a", "team:sales", "A%")
BUNDLES = ("one", "two", "three")
TEAMS = {"one": "sales", "two": "hr", "three": None}
NAMES = [
    "sales",
    "Sales",
    "sales_daily",
    "SALES_DAILY",
    "salesXdaily",
    "sales.daily",
    "100%",
    "100%_x",
    "wow!",
    "wow!_x",
    "a?b",
    "back\\slash",
    "été",
    "x" * 200,
]
FACTS = {
    name: DagFacts(frozenset(TAGS[: index % 4]), BUNDLES[index % 3], TEAMS[BUNDLES[index % 3]])
    for index, name in enumerate(NAMES)
}


def _fill() -> None:
    from airflow.models import import_all_models
    from airflow.models.base import Base
    from airflow.models.connection import Connection
    from airflow.models.dag import DagModel, DagTag
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.pool import Pool
    from airflow.models.team import Team, dag_bundle_team_association_table
    from airflow.models.variable import Variable
    from airflow.settings import get_engine
    from airflow.utils.session import create_session
    from sqlalchemy import insert

    import_all_models()
    Base.metadata.create_all(get_engine())
    with create_session(scoped=False) as session:
        for bundle in BUNDLES:
            session.add(DagBundleModel(name=bundle))
            if team := TEAMS[bundle]:
                session.add(Team(name=team))
                session.flush()
                session.execute(
                    dag_bundle_team_association_table.insert().values(dag_bundle_name=bundle, team_name=team)
                )
        for name, facts in FACTS.items():
            session.add(DagModel(dag_id=name, bundle_name=facts.bundle, fileloc="/x", relative_fileloc="x"))
            session.flush()
            session.add_all(DagTag(name=tag, dag_id=name) for tag in facts.tags)
            # Its constructor refuses some of these names.
            row = {"conn_id": name, "conn_type": "http", "team_name": facts.team}
            session.execute(insert(Connection).values(is_encrypted=False, is_extra_encrypted=False, **row))
            session.add(Variable(key=name, val="1", team_name=facts.team))
            session.add(Pool(pool=name, slots=1, include_deferred=False, team_name=facts.team))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, security_postgres: Postgres
) -> Iterator[str]:
    path: Path = tmp_path_factory.mktemp("selection")
    postgres = security_postgres.url(security_postgres.create_database())
    with using_database(f"sqlite:///{path}/airflow.db" if request.param == "sqlite" else postgres):
        _fill()
        yield request.param


patterns = st.sampled_from([*NAMES, "*", "sales*", "*daily", "s?les*", "100%*", "wow!*", "?", "*_x", "nothing"])
selectors = st.one_of(
    patterns.map(lambda p: DagSelector(ids=(p,))),
    st.sampled_from(TAGS).map(lambda t: DagSelector(tags=(t,))),
    st.sampled_from(["one", "two"]).map(lambda b: DagSelector(bundles=(b,))),
    st.sampled_from(["sales", "hr"]).map(lambda t: DagSelector(teams=(t,))),
    st.tuples(patterns, st.sampled_from(TAGS)).map(lambda pair: DagSelector(ids=(pair[0],), tags=(pair[1],))),
)
CELLS = ("dag:GET", "dag:PUT")
masks = st.lists(st.sampled_from([*CELLS, "dag.run:GET"]), min_size=1, max_size=3).map(mask_of)
everywhere = st.builds(lambda mask: Grant("here", ("user", "x"), "r", mask), masks)
some = st.builds(lambda mask, dags: Grant("here", ("user", "x"), "r", mask, dags=dags), masks, selectors)
of_team = st.builds(
    lambda mask, team: Grant("here", ("user", "x"), "r", mask, team=team), masks, st.sampled_from(["sales", "hr"])
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    grants=st.lists(st.one_of(some, some, of_team, everywhere), max_size=4),
    denies=st.lists(st.tuples(masks, selectors), max_size=2),
    cell=st.sampled_from(CELLS),
)
def test_selected_dags_are_those_that_single_questions_allow(
    database: str, grants: list[Grant], denies: list[tuple[int, DagSelector]], cell: str
) -> None:
    from airflow.utils.session import create_session

    from tradewind.security.selection import dags_where

    rules = Compiled(grants, denies, None)
    bit = BITS[cell]
    with create_session(scoped=False) as session:
        selected = set(session.scalars(dags_where(rules, bit, database)))
    asked = {name for name in NAMES if rules.dag(name, FACTS[name].team, FACTS.__getitem__, FACTS) & bit}
    assert selected == asked


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(RESOURCES)),
    ids=st.lists(patterns, max_size=2).map(tuple),
    teams=st.lists(st.sampled_from(["sales", "hr"]), min_size=1, max_size=2).map(tuple),
    base=st.booleans(),
)
def test_selected_resources_are_those_that_single_questions_allow(
    database: str, kind: str, ids: tuple[str, ...], teams: tuple[str, ...], base: bool
) -> None:
    from airflow.utils.session import create_session

    from tradewind.security.selection import resources_where

    cell = BITS[f"{kind.removesuffix('s')}:GET"]
    limited = {} if base else {kind: ResourceSelector(ids=ids, teams=teams)}
    rules = Compiled([Grant("here", ("user", "x"), "r", cell | DAG_CELLS, resources=limited)], [], None)
    with create_session(scoped=False) as session:
        selected = set(session.scalars(resources_where(rules, kind, cell, database)))
    asked = {name for name in NAMES if rules.resource(kind, name, FACTS[name].team) & cell}
    assert selected & set(NAMES) == asked
