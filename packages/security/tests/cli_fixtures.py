# SPDX-License-Identifier: Apache-2.0
"""`airflow tradewind-auth` in this process, with a policy file of its own for each test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

POLICY = """\
version: 1
organization: acme
workspace: data
deployment: prod
issuers:
  - {name: corp, issuer: https://idp.example, client_id: x, teams: {data: data-eng}}
roles:
  oncall: {scope: deployment, extends: [deployment_viewer], allow: ["dag.run:PUT"], description: On call}
bindings:
  - {group: "corp:sre", role: oncall, scope: deployment/prod}
  - {user: root@acme, role: ws_owner, scope: workspace/data}
"""


class Cli:
    """`airflow tradewind-auth`, as a person types it, in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.error = ""

    def __call__(self, *words: str, code: int = 0) -> str:
        from airflow.cli.cli_parser import get_parser

        args = get_parser().parse_args(["tradewind-auth", *words])
        self._capsys.readouterr()
        found = 0
        try:
            args.func(args)
        except SystemExit as stop:
            found = int(stop.code or 0)
        out, self.error = self._capsys.readouterr()
        assert found == code, (out, self.error)
        return out

    def json(self, *words: str, code: int = 0):
        return json.loads(self(*words, "--output", "json", code=code))

    def fails(self, *words: str) -> str:
        """The one line that says why."""
        assert self(*words, code=1) == ""
        assert self.error.count("\n") == 1, self.error
        assert "Traceback" not in self.error
        return self.error


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY, encoding="utf-8")
    return path


@pytest.fixture
def configured(policy_file, monkeypatch):
    monkeypatch.setenv("AIRFLOW__TRADEWIND_SECURITY__POLICY_FILE", str(policy_file))
    monkeypatch.setenv("AIRFLOW__TRADEWIND_SECURITY__AUDIT", "stdout:,table:")
