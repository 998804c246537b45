# SPDX-License-Identifier: Apache-2.0
"""One of everything for each of two teams, made through the API as an owner where the API can make it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from support.security_app import SIDES

if TYPE_CHECKING:
    from support.security_app import SecuredApp

__all__ = ["TEAMS", "seed"]

TEAMS = {"own": "alpha", "foreign": "beta"}


def seed(secured: SecuredApp, owner: str) -> None:
    """Fill the database.

    Args:
        secured: The app.
        owner: Somebody who may do everything.
    """
    token = secured.session(owner)

    def make(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = secured.client.request(method, path, token=token, json=body)
        assert answer.status_code < 300, (path, answer.status_code, answer.text)
        return answer.json() if answer.content else {}

    for side in SIDES:
        team = TEAMS[side]
        make("POST", "/api/v2/connections", {"connection_id": f"{side}_conn", "conn_type": "http", "team_name": team})
        make("POST", "/api/v2/variables", {"key": f"{side}_var", "value": side, "team_name": team})
        make(
            "POST", "/api/v2/pools", {"name": f"{side}_pool", "slots": 1, "include_deferred": False, "team_name": team}
        )
        dag = f"/api/v2/dags/{side}_dag"
        make("PATCH", dag, {"is_paused": False})
        make("POST", f"{dag}/dagRuns", {"dag_run_id": f"{side}_run", "logical_date": "2026-01-02T00:00:00Z"})
        task = f"{dag}/dagRuns/{side}_run/taskInstances/{side}_task"
        make("POST", f"{task}/xcomEntries", {"key": f"{side}_key", "value": side})
        make("PUT", f"{task}/state-store/{side}_key", {"value": side})
    listed = secured.client.request("GET", "/api/v2/assets", token=token).json()["assets"]
    assets = {asset["name"].split("_")[0]: asset["id"] for asset in listed}
    aliases = secured.client.request("GET", "/api/v2/assets/aliases", token=token).json()["asset_aliases"]
    secured.ids["asset"] = assets
    secured.ids["alias"] = {alias["name"].split("_")[0]: alias["id"] for alias in aliases}
    for side in SIDES:
        make("POST", "/api/v2/assets/events", {"asset_id": assets[side], "extra": {"by": side}})
        make("PUT", f"/api/v2/assets/{assets[side]}/state-store/{side}_key", {"value": side})
    _rows(secured)


def _rows(secured: SecuredApp) -> None:
    from airflow.models.asset import AssetDagRunQueue, AssetEvent
    from airflow.models.backfill import Backfill
    from airflow.models.dagwarning import DagWarning
    from airflow.models.errors import ParseImportError
    from airflow.models.hitl import HITLDetail
    from airflow.models.log import Log
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from itsdangerous import URLSafeSerializer
    from sqlalchemy import select

    now = datetime.now(timezone.utc)
    ids = secured.ids
    for name in ("backfill", "event_log", "import_error", "file_token"):
        ids[name] = {}
    with create_session(scoped=False) as session:
        for side in SIDES:
            task = session.scalars(select(TaskInstance).where(TaskInstance.dag_id == f"{side}_dag")).one()
            task.state = "success"
            session.add(HITLDetail(ti_id=task.id, options=["yes", "no"], subject=f"{side} question", params={}))
            session.add(DagWarning(f"{side}_dag", "non-existent pool", f"{side} warning"))
            asset = ids["asset"][side]
            if session.get(AssetDagRunQueue, (asset, f"{side}_consumer")) is None:
                session.add(AssetDagRunQueue(asset_id=asset, target_dag_id=f"{side}_consumer"))
            session.add(
                AssetEvent(asset_id=asset, source_dag_id=f"{side}_dag", source_run_id=f"{side}_run", timestamp=now)
            )
            backfill = Backfill(
                dag_id=f"{side}_dag", from_date=now, to_date=now, dag_run_conf={}, max_active_runs=1, is_paused=False
            )
            error = ParseImportError(
                timestamp=now, filename=f"{side}.py", bundle_name=f"{side}_bundle", stacktrace=f"{side} trace"
            )
            event = Log(event="seeded", dag_id=f"{side}_dag", extra=side)
            session.add_all([backfill, error, event])
            session.flush()
            ids["backfill"][side] = backfill.id
            ids["import_error"][side] = error.id
            ids["event_log"][side] = event.id
            ids["file_token"][side] = URLSafeSerializer(secured.app.state.secret_key).dumps(
                {"bundle_name": f"{side}_bundle", "relative_fileloc": f"{side}.py"}
            )
