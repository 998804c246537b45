# SPDX-License-Identifier: Apache-2.0
"""Every component's example Dags run, in real task processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(ROOT.glob("packages/*/examples/*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"{p.parts[-3]}-{p.stem}" for p in EXAMPLES])
def test_an_example_dag_runs_to_success(example, tmp_path, migrated_sqlite):
    shutil.copy(migrated_sqlite, tmp_path / "airflow.db")
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "dags", "test", example.stem],
        env={
            **os.environ,
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__CORE__DAGS_FOLDER": str(example.parent),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "state=success" in output, output
