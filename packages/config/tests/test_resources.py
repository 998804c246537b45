# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tradewind.config.resources import Resources, detect

GIB = 1 << 30
MEMINFO = "MemTotal:       24683108 kB\nMemFree:        1 kB\n"
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def record(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_container_with_its_own_namespace_gets_its_v2_limits(tmp_path):
    # docker run --cpus 1.5 --memory 2g on a v2 host
    root = record(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/memory.max": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory.high": "max\n",
        },
    )
    found = detect(root, affinity=16)
    assert (found.cpu, found.memory_bytes) == (1.5, 2 * GIB)
    assert "cpu.max" in found.source
    assert "memory.max" in found.source


def test_the_smallest_limit_up_the_v2_tree_counts(tmp_path):
    group = "kubepods.slice/kubepods-burstable.slice/kubepods-pod1.slice/cri-1.scope"
    root = record(
        tmp_path,
        {
            "proc/self/cgroup": f"0::/{group}\n",
            "proc/self/mountinfo": V2_MOUNT,
            f"sys/fs/cgroup/{group}/cpu.max": "max 100000\n",
            f"sys/fs/cgroup/{group}/memory.max": f"{8 * GIB}\n",
            "sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/memory.max": "max\n",
            "sys/fs/cgroup/kubepods.slice/memory.max": f"{4 * GIB}\n",
        },
    )
    assert detect(root, affinity=16) == Resources(
        4.0,
        4 * GIB,
        "cpu: cgroup v2 /sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/cpu.max; "
        "memory: cgroup v2 /sys/fs/cgroup/kubepods.slice/memory.max",
    )


def test_memory_high_limits_like_memory_max(tmp_path):
    root = record(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/a/memory.max": "max\n",
            "sys/fs/cgroup/a/memory.high": f"{GIB}\n",
        },
    )
    assert detect(root, affinity=2).memory_bytes == GIB


def test_a_v1_container_without_namespace_finds_its_part_of_the_tree(tmp_path):
    # The path in /proc/self/cgroup is the host's; the mount shows only the container's own group.
    root = record(
        tmp_path,
        {
            "proc/self/cgroup": "11:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
            "proc/self/mountinfo": (
                "40 30 0:33 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n"
                "41 30 0:34 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
            ),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{3 * GIB}\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    found = detect(root, affinity=8)
    assert (found.cpu, found.memory_bytes) == (2.5, 3 * GIB)


def test_unlimited_v1_groups_fall_back_to_affinity_and_the_machine(tmp_path):
    root = record(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/x\n1:cpu:/\n0::/\n",
            "proc/self/mountinfo": (
                "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
                "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
            ),
            "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert detect(root, affinity=2) == Resources(2.0, 24683108 * 1024, "cpu: CPU affinity; memory: machine memory")


def test_a_limit_that_makes_no_sense_is_left_out_with_a_warning_that_names_the_file(tmp_path, caplog):
    root = record(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/cpu.max": "plenty 100000\n",
            "sys/fs/cgroup/memory.max": f"{GIB}\n",
        },
    )
    found = detect(root, affinity=4)
    assert (found.cpu, found.memory_bytes) == (4.0, GIB)
    assert "sys/fs/cgroup/cpu.max holds 'plenty'" in caplog.text


def test_a_group_path_that_leaves_the_mount_is_not_followed(tmp_path):
    root = record(
        tmp_path,
        {
            "proc/self/cgroup": "0::/../../outside\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/memory.max": f"{GIB}\n",
            "sys/outside/memory.max": "4096\n",
        },
    )
    assert detect(root, affinity=1).memory_bytes == GIB


def run_detect(*prefix: str) -> dict[str, float]:
    code = (
        "import json; from tradewind.config.resources import detect; r = detect(); "
        "print(json.dumps({'cpu': r.cpu, 'memory': r.memory_bytes}))"
    )
    done = subprocess.run([*prefix, sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="CPU affinity is Linux's")
def test_this_machines_affinity_is_respected():
    cpu = min(os.sched_getaffinity(0))
    found = run_detect("taskset", "--cpu-list", str(cpu))
    assert found["cpu"] <= 1
    assert found["memory"] > 0


def limited_group(limit: int) -> tuple[list[Path], list[Path]]:
    """Make a real control group with a memory limit; returns (files to write our pid to, folders to remove)."""
    name = f"tradewind-test-{uuid.uuid4().hex[:8]}"
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for fields in mounts:
        kind, mount = fields[fields.index("-") + 1], Path(fields[4])
        folder = mount / name
        file = "memory.max" if kind == "cgroup2" else "memory.limit_in_bytes"
        if kind not in {"cgroup", "cgroup2"}:
            continue
        try:
            folder.mkdir()
            (folder / file).write_text(str(limit))
        except OSError:
            if folder.is_dir():
                folder.rmdir()
            continue
        return [folder / "cgroup.procs"], [folder]
    return [], []


def test_a_real_control_group_limits_a_real_process():
    limit = 512 << 20
    procs, folders = limited_group(limit)
    try:
        enter = "".join(f"echo $$ > {path} && " for path in procs)
        found = run_detect("sh", "-c", f'{enter}exec "$0" "$@"')
    finally:
        for folder in folders:
            folder.rmdir()
    # Where this user may not make a control group, what is left to check is that detection still answers.
    assert found["memory"] == limit if procs else found["memory"] > 0
