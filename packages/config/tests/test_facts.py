# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tradewind.config import roles
from tradewind.config.exceptions import FactsError
from tradewind.config.facts import PROFILES, Facts, load


def test_nothing_declared_gives_the_defaults(tmp_path):
    assert load({"AIRFLOW_HOME": str(tmp_path)}) == Facts()


def test_a_variable_wins_over_the_file(tmp_path):
    (tmp_path / "tradewind.yaml").write_text("profile: ha\ntask_memory_mb: 512\nworkers_max: 4\n")
    environ = {"AIRFLOW_HOME": str(tmp_path), "TRADEWIND_PROFILE": "small", "TRADEWIND_ROLE": "worker"}
    assert load(environ) == Facts(profile="small", role="worker", task_memory_mb=512, workers_max=4)


def test_an_empty_file_declares_nothing(tmp_path):
    (tmp_path / "tradewind.yaml").write_text("# nothing yet\n")
    assert load({"AIRFLOW_HOME": str(tmp_path)}) == Facts()


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("TRADEWIND_PROFILE", "turbo", "one of balanced, small, throughput, ha"),
        ("TRADEWIND_ROLE", "webserver", "one of api-server, cli,"),
        ("TRADEWIND_TASK_MEMORY_MB", "256M", "a whole number of MiB, for example 256, at least 1"),
        ("TRADEWIND_TASK_MEMORY_MB", "0", "at least 1"),
        ("TRADEWIND_TASK_MEMORY_MB", "٣", "at least 1"),
        ("TRADEWIND_WORKERS_MAX", "-1", "a whole number of workers"),
        ("TRADEWIND_CONFIG_FILE", "/nowhere/tradewind.yaml", "the path of an existing YAML file"),
    ],
)
def test_a_malformed_variable_is_named_with_its_value_and_what_is_right(tmp_path, variable, value, expected):
    with pytest.raises(FactsError) as caught:
        load({"AIRFLOW_HOME": str(tmp_path), variable: value})
    for part in (variable, repr(value), expected):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("profil: ha\n", "tradewind.yaml: profil"),
        ("workers_max: many\n", "tradewind.yaml: workers_max"),
        ("workers_max: true\n", "tradewind.yaml: workers_max"),
        ("- profile\n", "expected a mapping"),
        ("profile: [\n", "line 2"),
        ("profile: !!python/object/apply:os.system ['true']\n", "well-formed YAML"),
    ],
)
def test_a_malformed_file_is_named_with_the_key(tmp_path, text, named):
    (tmp_path / "tradewind.yaml").write_text(text)
    with pytest.raises(FactsError) as caught:
        load({"AIRFLOW_HOME": str(tmp_path)})
    assert named in str(caught.value)


def test_a_file_that_is_not_utf8_is_refused_by_name(tmp_path):
    (tmp_path / "tradewind.yaml").write_bytes(b"profile: \xff\n")
    with pytest.raises(FactsError, match=r"tradewind\.yaml"):
        load({"AIRFLOW_HOME": str(tmp_path)})


@given(
    st.dictionaries(
        st.one_of(st.sampled_from(["profile", "role", "task_memory_mb", "workers_max"]), st.text(max_size=8)),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(PROFILES)),
        max_size=4,
    )
)
def test_any_mapping_gives_facts_or_a_facts_error(tmp_path_factory, content):
    home = tmp_path_factory.mktemp("home")
    (home / "tradewind.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    try:
        facts = load({"AIRFLOW_HOME": str(home)})
    except FactsError:
        return
    assert facts.profile in PROFILES
    assert facts.role is None or facts.role in roles.ROLES
    assert facts.task_memory_mb >= 1
    assert facts.workers_max >= 1


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("airflow scheduler", "scheduler"),
        ("/opt/venv/bin/airflow api-server --port 8080", "api-server"),
        ("/x/airflow/__main__.py triggerer", "triggerer"),
        ("airflow dag-processor", "dag-processor"),
        ("airflow celery worker -q etl", "worker"),
        ("airflow standalone", "standalone"),
        ("airflow celery flower", "cli"),
        ("airflow dags list", "cli"),
        ("airflow", "cli"),
        ("python scheduler", "cli"),
        ("", "cli"),
    ],
)
def test_the_role_is_told_from_the_command_line(command, role):
    assert roles.detect(command.split()) == role
