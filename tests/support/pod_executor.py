# SPDX-License-Identifier: Apache-2.0
"""An executor whose tasks each live in a process with a disk of its own, as in a Kubernetes pod.

The process is the one that a pod runs: `python -m airflow.sdk.execution_time.execute_workload`. Its disk is gone for
Airflow when it ends; it is kept under another name, so that a test can tell what was lost with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from airflow.executors.base_executor import BaseExecutor

__all__ = ["PodExecutor"]


class PodExecutor(BaseExecutor):
    """Runs each workload in a process of its own; the environment variable POD_FOLDER names where they live.

    A pod of try 1 of task `t` of Dag `d` has `d.t.1.disk` while it runs, `d.t.1.lost` afterwards, and `d.t.1.pid`.
    """

    def start(self) -> None:
        """Begin without pods."""
        self._pods: dict[object, tuple[subprocess.Popen[bytes], Path]] = {}

    def _process_workloads(self, workload_items) -> None:
        for workload in workload_items:
            del self.queued_tasks[workload.ti.key]
            key = workload.ti.key
            folder = Path(os.environ["POD_FOLDER"])
            name = f"{key.dag_id}.{key.task_id}.{key.try_number}"
            disk = folder / f"{name}.disk"
            disk.mkdir(parents=True)
            request = folder / f"{name}.json"
            request.write_text(workload.model_dump_json(), encoding="utf-8")
            with (folder / f"{name}.out").open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "airflow.sdk.execution_time.execute_workload", "--json-path", str(request)],
                    env={**os.environ, "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(disk)},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            (folder / f"{name}.pid").write_text(str(process.pid), encoding="utf-8")
            self._pods[key] = (process, disk)
            self.running.add(key)

    def sync(self) -> None:
        """Report the pods that have ended."""
        for key, (process, disk) in list(self._pods.items()):
            if process.poll() is not None:
                del self._pods[key]
                disk.rename(disk.with_suffix(".lost"))
                if process.returncode == 0:
                    self.success(key)
                else:
                    self.fail(key)

    def end(self) -> None:
        """End every pod."""
        self.terminate()

    def terminate(self) -> None:
        """End every pod."""
        for process, _ in self._pods.values():
            process.kill()
            process.wait()
