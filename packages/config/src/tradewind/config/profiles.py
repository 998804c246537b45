# SPDX-License-Identifier: Apache-2.0
"""The settings that we change, as data: key, formula, clamp, reason, roles, executors.

`compute` is pure: the same resources, role, executor, facts and profile give the same settings.
Figures behind the formulas were measured on Airflow 3.3.2; each rule's reason names them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tradewind.config.facts import PROFILES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tradewind.config.facts import Facts
    from tradewind.config.resources import Resources

__all__ = ["KEYS", "RULES", "Inputs", "Rule", "Setting", "compute", "executor_names", "inputs"]

Number = int | float
Key = tuple[str, str]


@dataclass(frozen=True)
class Setting:
    """One tuned setting.

    Args:
        value: What Airflow gets unless the user says otherwise.
        upstream: Airflow's own default.
        formula: How the value was computed, with the names of its inputs.
        reason: Why it differs from upstream.
    """

    value: Number
    upstream: Number
    formula: str
    reason: str

    def as_config(self) -> str:
        """The value as it would stand in airflow.cfg.

        Example:
            >>> Setting(30.0, 5.0, "30", "").as_config()
            '30.0'
        """
        return str(self.value)


@dataclass(frozen=True)
class _Profile:
    slots_per_cpu: int
    memory_share: float
    high_availability: bool = False


_PROFILES = {
    "balanced": _Profile(slots_per_cpu=5, memory_share=0.85),
    "small": _Profile(slots_per_cpu=2, memory_share=0.7),
    "throughput": _Profile(slots_per_cpu=8, memory_share=0.9),
    "ha": _Profile(slots_per_cpu=5, memory_share=0.85, high_availability=True),
}


@dataclass(frozen=True)
class Inputs:
    """What the formulas are computed from.

    Args:
        cpu: Effective CPUs.
        memory_mb: Effective memory in MiB.
        task_memory_mb: Memory of one running task in MiB.
        profile: The profile's factors.
    """

    cpu: float
    memory_mb: int
    task_memory_mb: int
    profile: _Profile

    @property
    def whole_cpus(self) -> int:
        """CPUs, rounded up."""
        return max(1, math.ceil(self.cpu))

    def local_slots(self) -> int:
        """Tasks that this machine runs at one time under the LocalExecutor."""
        by_cpu = self.profile.slots_per_cpu * self.cpu
        by_memory = (self.profile.memory_share * self.memory_mb - 1000) / self.task_memory_mb
        return max(1, math.floor(min(by_cpu, by_memory)))


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    Args:
        key: (section, key).
        upstream: Airflow's default, pinned by a test against the installed Airflow.
        compute: The formula.
        formula: The formula in words of its inputs.
        reason: Why.
        roles: Roles that it applies to; empty means all.
        executors: It applies when no other executor than these is configured; empty means always.
        high_availability_only: Applies to the profile `ha` only.
    """

    key: Key
    upstream: Number
    compute: Callable[[Inputs], Number]
    formula: str
    reason: str
    roles: frozenset[str] = frozenset()
    executors: frozenset[str] = frozenset()
    high_availability_only: bool = False


_LOCAL = frozenset({"LocalExecutor"})
_API = frozenset({"api-server", "standalone"})
_NOT_API = frozenset({"cli", "dag-processor", "scheduler", "triggerer", "worker"})

RULES: tuple[Rule, ...] = (
    Rule(
        key=("core", "parallelism"),
        upstream=32,
        compute=lambda i: i.local_slots(),
        formula="max(1, floor(min(slots_per_cpu * cpu, (memory_share * memory_mb - 1000) / task_memory_mb)))",
        reason="LocalExecutor runs this many tasks on this machine. 5 a CPU gave 1.22x the throughput of 32 "
        "on two CPUs at 0.53x the memory, and no time-outs while the machine was busy.",
        executors=_LOCAL,
    ),
    Rule(
        key=("core", "max_active_tasks_per_dag"),
        upstream=16,
        compute=lambda i: max(16, i.local_slots() // 2),
        formula="max(16, parallelism // 2)",
        reason="One Dag may use half of the slots, so that a large machine is not capped at 16.",
        executors=_LOCAL,
    ),
    Rule(
        key=("core", "default_pool_task_slot_count"),
        upstream=128,
        compute=lambda i: max(128, i.local_slots()),
        formula="max(128, parallelism)",
        reason="The default pool must not be a hidden cap below parallelism; read when the pool is created.",
        executors=_LOCAL,
    ),
    Rule(
        key=("scheduler", "max_tis_per_query"),
        upstream=16,
        compute=lambda i: min(512, max(32, i.local_slots())),
        formula="min(512, max(32, parallelism))",
        reason="The scheduler must be able to fill every slot in one loop.",
        executors=_LOCAL,
    ),
    Rule(
        key=("scheduler", "max_dagruns_per_loop_to_schedule"),
        upstream=20,
        compute=lambda i: 20 * i.whole_cpus,
        formula="20 * ceil(cpu)",
        reason="Dag runs that one loop looks at grow with the CPU that looks at them.",
    ),
    Rule(
        key=("scheduler", "max_dagruns_to_create_per_loop"),
        upstream=10,
        compute=lambda i: 10 * i.whole_cpus,
        formula="10 * ceil(cpu)",
        reason="Many Dags that are due at the same minute start in fewer loops.",
    ),
    Rule(
        key=("dag_processor", "parsing_processes"),
        upstream=2,
        compute=lambda i: max(1, min(i.whole_cpus, i.memory_mb // 350)),
        formula="max(1, min(ceil(cpu), memory_mb // 350))",
        reason="One parser a CPU, each with about 350 MiB.",
    ),
    Rule(
        key=("dag_processor", "refresh_interval"),
        upstream=300,
        compute=lambda _: 30,
        formula="30",
        reason="A new Dag file is seen in 30 s instead of 5 minutes.",
    ),
    Rule(
        key=("triggerer", "capacity"),
        upstream=1000,
        compute=lambda i: max(50, min(1000, i.memory_mb)),
        formula="max(50, min(1000, memory_mb))",
        reason="About 1 MiB for each trigger; 1000 from 1 GiB on.",
    ),
    Rule(
        key=("api", "workers"),
        upstream=1,
        compute=lambda i: max(1, min(i.whole_cpus, i.memory_mb // 450, 8)),
        formula="max(1, min(ceil(cpu), memory_mb // 450, 8))",
        reason="One process a CPU: with one, every task's heartbeat waits behind each page that is rendered.",
    ),
    Rule(
        key=("workers", "execution_api_timeout"),
        upstream=5.0,
        compute=lambda _: 30.0,
        formula="30.0",
        reason="On a busy machine 5 s made 2 of 40 no-op tasks fail with ReadTimeout; waiting longer costs nothing.",
    ),
    Rule(
        key=("database", "sql_alchemy_pool_size"),
        upstream=5,
        compute=lambda _: 3,
        formula="3",
        reason="Only api-servers serve many requests at a time; with the overflow of 2, two of each component "
        "open at most 178 connections instead of 278, and Postgres allows 100.",
        roles=_NOT_API,
    ),
    Rule(
        key=("database", "sql_alchemy_max_overflow"),
        upstream=10,
        compute=lambda _: 2,
        formula="2",
        reason="See sql_alchemy_pool_size.",
        roles=_NOT_API,
    ),
    Rule(
        key=("database", "sql_alchemy_max_overflow"),
        upstream=10,
        compute=lambda _: 5,
        formula="5",
        reason="Each api-server process has a sync and an async engine, and each of them has this budget.",
        roles=_API,
    ),
    Rule(
        key=("scheduler", "scheduler_health_check_threshold"),
        upstream=30,
        compute=lambda _: 15,
        formula="15",
        reason="A dead scheduler is noticed after three missed heartbeats.",
        high_availability_only=True,
    ),
    Rule(
        key=("scheduler", "orphaned_tasks_check_interval"),
        upstream=300.0,
        compute=lambda _: 15.0,
        formula="15.0",
        reason="Tasks of a dead scheduler are adopted within 30 s instead of 330 s.",
        high_availability_only=True,
    ),
    Rule(
        key=("scheduler", "task_instance_heartbeat_timeout"),
        upstream=300,
        compute=lambda _: 60,
        formula="60",
        reason="Tasks of a dead worker are retried within 70 s instead of 310 s (12 missed heartbeats).",
        high_availability_only=True,
    ),
    Rule(
        key=("scheduler", "task_queued_timeout"),
        upstream=600.0,
        compute=lambda _: 300.0,
        formula="300.0",
        reason="A task that never reached the broker is queued again within 330 s instead of 720 s.",
        high_availability_only=True,
    ),
    Rule(
        key=("scheduler", "task_queued_timeout_check_interval"),
        upstream=120.0,
        compute=lambda _: 30.0,
        formula="30.0",
        reason="See task_queued_timeout.",
        high_availability_only=True,
    ),
)


def inputs(resources: Resources, facts: Facts, profile: str = "balanced") -> dict[str, Number]:
    """The values of the names that stand in the formulas.

    Args:
        resources: What the process may use.
        facts: Declared facts.
        profile: One of `tradewind.config.facts.PROFILES`.

    Raises:
        ValueError: The profile is unknown.
    """
    given = _gather(resources, facts, profile)
    return {
        "cpu": given.cpu,
        "memory_mb": given.memory_mb,
        "task_memory_mb": given.task_memory_mb,
        "slots_per_cpu": given.profile.slots_per_cpu,
        "memory_share": given.profile.memory_share,
    }


def _gather(resources: Resources, facts: Facts, profile: str) -> Inputs:
    if profile not in _PROFILES:
        raise ValueError(f"profile={profile!r}: expected one of {', '.join(PROFILES)}")
    return Inputs(resources.cpu, resources.memory_mb, facts.task_memory_mb, _PROFILES[profile])


KEYS: frozenset[Key] = frozenset(rule.key for rule in RULES)
"""Every (section, key) that some role, executor or profile tunes."""

_CLASS_PATH = re.compile(r"[.:]")


def executor_names(configured: str) -> frozenset[str]:
    """Class names in Airflow's `[core] executor`, for all teams.

    Args:
        configured: For example `LocalExecutor`, `CeleryExecutor,my.module.K8s:KubernetesExecutor` or
            `LocalExecutor;team1=CeleryExecutor`.

    Example:
        >>> sorted(executor_names("LocalExecutor;team1=CeleryExecutor"))
        ['CeleryExecutor', 'LocalExecutor']
    """
    names: set[str] = set()
    for group in configured.split(";"):
        for entry in group.rpartition("=")[2].split(","):
            # An entry is a name, a module path, or alias:path in either order; the class is the part that is
            # spelt like one.
            parts = [part.strip() for part in _CLASS_PATH.split(entry) if part.strip()]
            names.update(part for part in parts if part.endswith("Executor"))
    return frozenset(names)


def compute(
    resources: Resources,
    role: str,
    executor: str,
    facts: Facts,
    profile: str = "balanced",
) -> dict[Key, Setting]:
    """Compute the settings of one process.

    Args:
        resources: What the process may use.
        role: One of `tradewind.config.roles.ROLES`.
        executor: Airflow's `[core] executor`, as configured.
        facts: Declared facts.
        profile: One of `tradewind.config.facts.PROFILES`.

    Returns:
        (section, key) to the setting; a key that no rule tunes for this role, executor and profile is left
        out.

    Raises:
        ValueError: The profile is unknown.

    Example:
        >>> from tradewind.config.facts import Facts
        >>> from tradewind.config.resources import Resources
        >>> two_cpus = Resources(cpu=2, memory_bytes=4 << 30, source="example")
        >>> compute(two_cpus, "scheduler", "LocalExecutor", Facts())["core", "parallelism"].value
        9
    """
    given = _gather(resources, facts, profile)
    executors = executor_names(executor)
    settings: dict[Key, Setting] = {}
    for rule in RULES:
        if rule.roles and role not in rule.roles:
            continue
        # Beside another executor, a limit made for this machine's slots would also cap the other one.
        if rule.executors and not (executors and executors <= rule.executors):
            continue
        if rule.high_availability_only and not given.profile.high_availability:
            continue
        settings[rule.key] = Setting(rule.compute(given), rule.upstream, rule.formula, rule.reason)
    return settings
