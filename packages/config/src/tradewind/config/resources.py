# SPDX-License-Identifier: Apache-2.0
"""How much CPU and memory this process may really use.

`os.cpu_count()` and MemTotal describe the host; inside a container the limits are the control group's.
Sources: Linux kernel documentation, "Control Group v2" (cpu.max, memory.max, memory.high) and
"Control Groups version 1" (cpu.cfs_quota_us, cpu.cfs_period_us, memory.limit_in_bytes).
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Resources", "detect"]

log = logging.getLogger(__name__)

# v1 says "unlimited" with the largest page-aligned 63-bit number; no machine has an exbibyte.
_UNLIMITED_BYTES = 1 << 60


@dataclass(frozen=True)
class Resources:
    """What one process may use.

    Args:
        cpu: CPUs, possibly a fraction (1.5 is a quota of 150 ms in each 100 ms).
        memory_bytes: Memory in bytes.
        source: Where both numbers come from, in words.
    """

    cpu: float
    memory_bytes: int
    source: str

    @property
    def memory_mb(self) -> int:
        """Memory in MiB."""
        return self.memory_bytes // (1 << 20)


@dataclass(frozen=True)
class _Limit:
    value: float
    source: str


def detect(root: Path = Path("/"), *, affinity: int | None = None) -> Resources:
    """Find the effective resources: the minimum of control group limits, CPU affinity and the machine.

    Args:
        root: Where `proc` and `sys` are found; another folder than `/` reads a recorded tree.
        affinity: Number of CPUs that this process may be scheduled on; asks the kernel when None.

    Returns:
        The effective resources. A limit that can't be read is left out, with a warning that names the file.

    Example:
        >>> detect().cpu > 0
        True
    """
    cpus = [_Limit(float(affinity if affinity is not None else _schedulable_cpus()), "CPU affinity")]
    memory = [_Limit(float(_machine_memory(root)), "machine memory")]
    for version, controllers, mount, group in _hierarchies(root):
        for folder in _up_the_tree(mount, group):
            shown = f"cgroup {version} /{folder.relative_to(root).as_posix()}"
            if version == "v2":
                cpus += _v2_cpu(folder, shown)
                memory += _v2_memory(folder, shown)
            else:
                if "cpu" in controllers:
                    cpus += _v1_cpu(folder, shown)
                if "memory" in controllers:
                    memory += _v1_memory(folder, shown)
    cpu = min(cpus, key=lambda limit: limit.value)
    ram = min(memory, key=lambda limit: limit.value)
    return Resources(
        cpu=cpu.value,
        memory_bytes=int(ram.value),
        source=f"cpu: {cpu.source}; memory: {ram.source}",
    )


def _schedulable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _machine_memory(root: Path) -> int:
    for line in _lines(root / "proc" / "meminfo"):
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return int(rest.split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning("%s can't be read (%s): limits that it holds are not respected", path, error)
        return []


def _hierarchies(root: Path) -> Iterator[tuple[str, frozenset[str], Path, PurePosixPath]]:
    """Yield (version, controllers, mount point below root, path of our group below the mount)."""
    groups: dict[str, PurePosixPath] = {}
    for line in _lines(root / "proc" / "self" / "cgroup"):
        fields = line.split(":", 2)
        if len(fields) == 3:  # noqa: PLR2004 - hierarchy-ID:controllers:path, cgroups(7)
            for controller in fields[1].split(","):
                groups[controller] = PurePosixPath(fields[2])
    for line in _lines(root / "proc" / "self" / "mountinfo"):
        before, separator, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if not separator or len(fields) < 5 or len(rest) < 3:  # noqa: PLR2004 - proc_pid_mountinfo(5)
            continue
        mounted_root, mount = PurePosixPath(fields[3]), root / fields[4].lstrip("/")
        if rest[0] == "cgroup2":
            controllers, version, group = frozenset({""}), "v2", groups.get("")
        elif rest[0] == "cgroup":
            controllers, version = frozenset(rest[2].split(",")), "v1"
            group = next((groups[c] for c in ("cpu", "memory") if c in controllers and c in groups), None)
        else:
            continue
        if group is not None:
            yield version, controllers, mount, _below(group, mounted_root)


def _below(group: PurePosixPath, mounted_root: PurePosixPath) -> PurePosixPath:
    # Without a cgroup namespace, a container sees the host's path in /proc/self/cgroup and only its own part
    # of the tree in the mount; the mount's root field says which part.
    try:
        return group.relative_to(mounted_root)
    except ValueError:
        return PurePosixPath()


def _up_the_tree(mount: Path, group: PurePosixPath) -> Iterator[Path]:
    parts = [part for part in group.parts if part not in {"/", "."}]
    if ".." in parts:
        parts = []
    for length in range(len(parts), -1, -1):
        folder = mount.joinpath(*parts[:length])
        if folder.is_dir():
            yield folder


def _number(path: Path, text: str) -> float | None:
    if text in {"", "max"}:
        return None
    try:
        return float(text)
    except ValueError:
        log.warning("%s holds %r, expected a number or 'max': this limit is not respected", path, text)
        return None


def _first_line(path: Path) -> str:
    lines = _lines(path)
    return lines[0].strip() if lines else ""


def _v2_cpu(folder: Path, shown: str) -> Iterator[_Limit]:
    path = folder / "cpu.max"
    fields = _first_line(path).split()
    quota = _number(path, fields[0]) if fields else None
    period = _number(path, fields[1]) if len(fields) > 1 else 100_000.0
    if quota and period:
        yield _Limit(quota / period, f"{shown}/cpu.max")


def _v2_memory(folder: Path, shown: str) -> Iterator[_Limit]:
    for name in ("memory.max", "memory.high"):
        value = _number(folder / name, _first_line(folder / name))
        if value:
            yield _Limit(value, f"{shown}/{name}")


def _v1_cpu(folder: Path, shown: str) -> Iterator[_Limit]:
    quota = _number(folder / "cpu.cfs_quota_us", _first_line(folder / "cpu.cfs_quota_us"))
    period = _number(folder / "cpu.cfs_period_us", _first_line(folder / "cpu.cfs_period_us"))
    if quota and period and quota > 0:
        yield _Limit(quota / period, f"{shown}/cpu.cfs_quota_us")


def _v1_memory(folder: Path, shown: str) -> Iterator[_Limit]:
    value = _number(folder / "memory.limit_in_bytes", _first_line(folder / "memory.limit_in_bytes"))
    if value and value < _UNLIMITED_BYTES:
        yield _Limit(value, f"{shown}/memory.limit_in_bytes")
