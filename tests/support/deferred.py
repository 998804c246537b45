# SPDX-License-Identifier: Apache-2.0
"""Task instances that wait for triggers, written into a metadata database without running a task.

A program: `python deferred.py <classpath of the trigger> <number> <JSON of its arguments>`, with the environment of the
deployment.
"""

from __future__ import annotations

import json
import sys


def main(classpath: str, number: int, arguments: dict[str, object]) -> None:
    """Make one Dag run with that many deferred instances of a mapped task `wait` of the Dag `deferred`."""
    import pendulum
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.sdk import DAG
    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunTriggeredByType, DagRunType
    from sqlalchemy import select

    with DAG("deferred", schedule=None) as dag:
        BashOperator.partial(task_id="wait").expand(bash_command=["true"] * number)
    now = pendulum.datetime(2026, 1, 1)
    with create_session() as session:
        session.add(DagBundleModel(name="b"))
        session.flush()
        lazy = LazyDeserializedDAG.from_dag(dag)
        SerializedDAG.bulk_write_to_db("b", None, [lazy], session=session)
        SerializedDagModel.write_dag(lazy, bundle_name="b", session=session)
        session.commit()
        DagSerialization.from_dict(DagSerialization.to_dict(dag)).create_dagrun(
            run_id="r",
            logical_date=now,
            data_interval=(now, now),
            run_after=now,
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state="running",
            session=session,
        )
        session.commit()
        for instance in session.scalars(select(TaskInstance)):
            trigger = Trigger(classpath=classpath, kwargs=arguments)
            session.add(trigger)
            session.flush()
            instance.trigger_id, instance.state, instance.try_number = trigger.id, "deferred", 1
        session.commit()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
