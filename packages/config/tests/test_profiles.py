# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.config.facts import PROFILES, Facts
from tradewind.config.profiles import KEYS, compute, executor_names, inputs
from tradewind.config.resources import Resources
from tradewind.config.roles import ROLES

MIB = 1 << 20
PARALLELISM = ("core", "parallelism")

cpus = st.floats(min_value=0.1, max_value=256, allow_nan=False)
memory = st.integers(min_value=64 * MIB, max_value=2048 * 1024 * MIB)


def machine(cpu: float, memory_mb: int) -> Resources:
    return Resources(cpu, memory_mb * MIB, "test")


@pytest.mark.parametrize(("cpu", "memory_mb", "slots"), [(1, 2048, 2), (2, 4096, 9), (2, 24105, 10), (8, 16384, 40)])
def test_local_parallelism_follows_cpu_and_memory(cpu, memory_mb, slots):
    assert compute(machine(cpu, memory_mb), "scheduler", "LocalExecutor", Facts())[PARALLELISM].value == slots


@given(cpus, cpus, memory, memory, st.sampled_from(ROLES), st.sampled_from(PROFILES))
def test_more_cpu_or_memory_never_lowers_a_setting(cpu, more_cpu, mem, more_mem, role, profile):
    small = Resources(min(cpu, more_cpu), min(mem, more_mem), "test")
    large = Resources(max(cpu, more_cpu), max(mem, more_mem), "test")
    low = compute(small, role, "LocalExecutor", Facts(), profile)
    high = compute(large, role, "LocalExecutor", Facts(), profile)
    assert low.keys() == high.keys()
    for key, setting in low.items():
        assert setting.value <= high[key].value, key


@given(cpus, memory, st.integers(1, 8192), st.sampled_from(PROFILES))
def test_local_tasks_stay_inside_the_memory_budget(cpu, mem, task_memory_mb, profile):
    facts = Facts(task_memory_mb=task_memory_mb)
    resources = Resources(cpu, mem, "test")
    slots = compute(resources, "scheduler", "LocalExecutor", facts, profile)[PARALLELISM].value
    share = inputs(resources, facts, profile)["memory_share"]
    assert slots == 1 or slots * task_memory_mb <= share * resources.memory_mb - 1000


@given(cpus, memory, st.sampled_from(ROLES), st.sampled_from(PROFILES))
def test_every_setting_says_why_and_is_a_known_key(cpu, mem, role, profile):
    settings = compute(Resources(cpu, mem, "test"), role, "LocalExecutor", Facts(), profile)
    assert settings.keys() <= KEYS
    for setting in settings.values():
        assert setting.reason
        assert setting.formula
        assert setting.value > 0


def test_upstream_values_are_those_of_the_installed_airflow():
    import airflow.config_templates
    import yaml

    (folder,) = airflow.config_templates.__path__
    description = yaml.safe_load((Path(folder) / "config.yml").read_text())
    for profile in PROFILES:
        for role in ROLES:
            settings = compute(machine(2, 4096), role, "LocalExecutor", Facts(), profile)
            for (section, key), setting in settings.items():
                assert description[section]["options"][key]["default"] == str(setting.upstream), (section, key)


def test_settings_made_for_local_slots_do_not_cap_another_executor():
    for executor in ("CeleryExecutor", "LocalExecutor,CeleryExecutor", "LocalExecutor;team1=CeleryExecutor"):
        assert PARALLELISM not in compute(machine(2, 4096), "scheduler", executor, Facts())


def test_only_the_ha_profile_shortens_time_outs():
    key = ("scheduler", "task_instance_heartbeat_timeout")
    having = [p for p in PROFILES if key in compute(machine(2, 4096), "scheduler", "LocalExecutor", Facts(), p)]
    assert having == ["ha"]


def test_an_api_server_keeps_more_connections_than_a_scheduler():
    key = ("database", "sql_alchemy_max_overflow")
    api, scheduler = (
        compute(machine(2, 4096), role, "LocalExecutor", Facts())[key].value for role in ("api-server", "scheduler")
    )
    assert (api, scheduler) == (5, 2)


def test_an_unknown_profile_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="profile='turbo': expected one of balanced, small, throughput, ha"):
        compute(machine(2, 4096), "scheduler", "LocalExecutor", Facts(), "turbo")


@pytest.mark.parametrize(
    ("configured", "names"),
    [
        ("LocalExecutor", {"LocalExecutor"}),
        (" LocalExecutor , CeleryExecutor", {"LocalExecutor", "CeleryExecutor"}),
        ("airflow.providers.celery.executors.celery_executor.CeleryExecutor", {"CeleryExecutor"}),
        ("mine:my.module.SpecialExecutor", {"SpecialExecutor"}),
        ("LocalExecutor;team1=CeleryExecutor,mine:x.KubeExecutor", {"LocalExecutor", "CeleryExecutor", "KubeExecutor"}),
    ],
)
def test_executor_names_are_read_from_every_form_that_airflow_accepts(configured, names):
    assert executor_names(configured) == names
