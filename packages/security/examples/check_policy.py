# SPDX-License-Identifier: Apache-2.0
"""Check every morning what the policy file allows, and log what `lint` finds.

A policy grows: bindings of teams that are gone, roles that a newer Airflow's pages need more cells for, tags
that everybody can set. The task fails on errors, so that somebody is told.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from airflow.sdk import dag, get_current_context, task

log = logging.getLogger(__name__)

EXAMPLE = """
version: 1
deployment: prod
bindings:
  - {user: ann@acme.example, role: org_owner, scope: organization/default}
  - {team: sales, role: dag_author, scope: deployment/prod, dags: {tags: ["team:sales"]}}
"""


@dag(schedule=None, catchup=False, params={"path": ""}, tags=["tradewind", "example"])
def check_policy() -> None:
    """One task; `path` is the policy file, without one an example is checked."""

    @task
    def lint() -> list[dict[str, object]]:
        from tradewind.security.policy.lint import lint as findings_of
        from tradewind.security.policy.loader import parse

        path = get_current_context()["params"]["path"]
        policy = parse(Path(path).read_text(encoding="utf-8") if path else EXAMPLE, path or "example")
        findings = findings_of(policy)
        for finding in findings:
            log.info("%s %s: %s (%s)", finding.place, finding.severity, finding.message, finding.fix)
        if any(finding.severity == "error" for finding in findings):
            raise ValueError(f"{path}: see the log for what is wrong")
        return [asdict(finding) for finding in findings]

    lint()


check_policy()
