# SPDX-License-Identifier: Apache-2.0
"""The overlay in real Airflow processes: core and the Task SDK, each in an interpreter of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from configparser import ConfigParser
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

CORE = "from airflow.configuration import conf"
SDK = "from airflow.sdk.configuration import conf"

REPORT = """
import json, sys
from tradewind.config import overlay
keys = json.loads(sys.argv[1])
shown = conf.as_dict(display_source=True)
print(json.dumps({k: [conf.get(*k.split(".")), *reversed(overlay.source_of(conf, *k.split("."))),
      *shown.get(k.split(".")[0], {}).get(k.split(".")[1], [None, None])] for k in keys}))
"""


def environment(home: Path, **extra: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "TRADEWIND_"))}
    return {**kept, "AIRFLOW_HOME": str(home), **extra}


def run(home: Path, *command: str, expect: int = 0, **extra: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *command],
        env=environment(home, **extra),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def airflow(home: Path, *command: str, expect: int = 0, **extra: str) -> subprocess.CompletedProcess[str]:
    return run(home, "-m", "airflow", *command, expect=expect, **extra)


def report(home: Path, parser: str, *keys: str, **extra: str) -> dict[str, tuple[str, str]]:
    """(value, source) of each key; checks that every way in which Airflow tells them agrees."""
    done = run(home, "-c", parser + REPORT, json.dumps(keys), **extra)
    told = {}
    for key, (value, source, looked_up, dict_value, dict_source) in json.loads(done.stdout.splitlines()[-1]).items():
        assert value == looked_up
        if dict_source not in {None, "env var"}:
            assert (dict_value, dict_source) == (value, source), key
        told[key] = (value, source)
    return told


@pytest.mark.parametrize("parser", [CORE, SDK, f"{SDK}\n{CORE}", f"{CORE}\n{SDK}"])
def test_tuned_values_come_from_tradewind_whichever_parser_is_first(tmp_path, parser):
    told = report(tmp_path, parser, "core.parallelism", "dag_processor.refresh_interval", "core.executor")
    assert told["core.parallelism"][1] == "tradewind"
    assert told["core.parallelism"][0] != "32"
    assert told["dag_processor.refresh_interval"] == ("30", "tradewind")
    assert told["core.executor"] == ("LocalExecutor", "default")


@pytest.mark.parametrize("parser", [CORE, SDK])
def test_environment_and_airflow_cfg_win_under_new_and_former_names(tmp_path, parser):
    (tmp_path / "airflow.cfg").write_text(
        "[core]\nparallelism = 77\n[triggerer]\ndefault_capacity = 5\n[dag_processor]\nparsing_processes = 4\n"
    )
    told = report(
        tmp_path,
        parser,
        "core.parallelism",
        "triggerer.capacity",
        "dag_processor.parsing_processes",
        "dag_processor.refresh_interval",
        "scheduler.max_tis_per_query",
        AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES="99",
        AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL="61",
    )
    assert told["core.parallelism"] == ("77", "airflow.cfg")
    assert told["triggerer.capacity"] == ("5", "airflow.cfg")
    assert told["dag_processor.parsing_processes"] == ("99", "env var")
    assert told["dag_processor.refresh_interval"] == ("61", "env var")
    assert told["scheduler.max_tis_per_query"][1] == "tradewind"


@pytest.mark.parametrize("parser", [CORE, SDK])
def test_switched_off_airflow_is_stock(tmp_path, parser):
    told = report(
        tmp_path, parser, "core.parallelism", "dag_processor.refresh_interval", TRADEWIND_CONFIG_DEFAULTS="off"
    )
    assert told == {
        "core.parallelism": ("32", "default"),
        "dag_processor.refresh_interval": ("300", "default"),
    }


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("TRADEWIND_TASK_MEMORY_MB", "lots", "a whole number of MiB"),
        ("TRADEWIND_PROFILE", "turbo", "one of balanced, small, throughput, ha"),
        ("TRADEWIND_CONFIG_DEFAULTS", "perhaps", "on or off"),
    ],
)
def test_a_malformed_fact_warns_once_and_airflow_starts_on_its_own_defaults(tmp_path, variable, value, expected):
    code = f"{CORE}; {SDK} as sdk; print(conf.get('core', 'parallelism'), sdk.get('core', 'parallelism'))"
    done = run(tmp_path, "-c", code, **{variable: value})
    assert done.stdout.split()[-2:] == ["32", "32"]
    # Before Airflow has configured logging a warning goes to stderr, afterwards where its own ones go.
    warnings = [line for line in (done.stderr + done.stdout).splitlines() if variable in line]
    assert len(warnings) == 1, done.stdout + done.stderr
    assert repr(value) in warnings[0]
    assert expected in warnings[0]


def test_the_first_command_does_not_freeze_upstreams_defaults(tmp_path):
    first = airflow(tmp_path, "config", "get-value", "core", "parallelism").stdout.split()[-1]
    written = ConfigParser(interpolation=None)
    written.read(tmp_path / "airflow.cfg")
    live = {(section, key) for section in written.sections() for key in written[section]}
    assert live == {("core", "fernet_key"), ("api", "secret_key"), ("api_auth", "jwt_secret")}
    assert all(written.get(section, key) for section, key in live)
    done = airflow(
        tmp_path, "config", "list", "--section", "core", "--include-sources", "--show-values", "--color", "off"
    )
    lines = done.stdout.splitlines()
    place = lines.index(f"parallelism = {first}")
    assert first != "32"
    assert lines[place - 1] == "# Source: tradewind"


def test_an_api_server_gets_several_workers_only_when_they_share_their_secrets(tmp_path):
    code = CORE + "; print(conf.get('api', 'workers'))"
    role = {"TRADEWIND_ROLE": "api-server"}
    page = {"AIRFLOW__API__SECRET_KEY": "one"}
    secrets = {**page, "AIRFLOW__API_AUTH__JWT_SECRET": "two"}
    alone = run(tmp_path, "-c", code, **role).stdout.split()[-1]
    shared = run(tmp_path, "-c", code, **role, **secrets).stdout.split()[-1]
    one_missing = run(tmp_path, "-c", code, **role, **page).stdout.split()[-1]
    code = "from tradewind.config.resources import detect; r = detect(); print(r.cpu, r.memory_mb)"
    cpu, memory_mb = run(tmp_path, "-c", code).stdout.split()
    assert (alone, one_missing) == ("1", "1")
    assert int(shared) == max(1, min(-int(-float(cpu) // 1), int(memory_mb) // 450, 8))


def test_doctor_finds_stock_airflows_file_repairs_it_and_is_content(tmp_path):
    airflow(tmp_path, "config", "get-value", "core", "parallelism", TRADEWIND_CONFIG_DEFAULTS="off")
    path = tmp_path / "airflow.cfg"
    frozen = path.read_text()
    assert "\nparallelism = 32\n" in frozen
    path.write_text(
        frozen.replace("\nload_examples = False\n", "\n").replace("\nparallelism = 32\n", "\nparallelism = 6\n")
    )

    (finding,) = json.loads(airflow(tmp_path, "tradewind-config", "doctor", "-o", "json", expect=1).stdout)
    assert (finding["id"], finding["severity"]) == ("frozen-airflow-cfg", "warning")
    assert "dag_processor.refresh_interval" in finding["message"]

    airflow(tmp_path, "tradewind-config", "doctor", "--fix")
    assert json.loads(airflow(tmp_path, "tradewind-config", "doctor", "-o", "json").stdout) == []
    told = report(tmp_path, CORE, "core.parallelism", "dag_processor.refresh_interval")
    assert told["core.parallelism"] == ("6", "airflow.cfg")
    assert told["dag_processor.refresh_interval"] == ("30", "tradewind")


def test_explain_tells_value_source_and_formula_with_its_inputs(tmp_path):
    done = airflow(tmp_path, "tradewind-config", "explain", "core.parallelism", "-o", "json")
    (row,) = json.loads(done.stdout)
    assert row["source"] == "tradewind"
    assert row["value"] == row["tradewind"]
    assert row["upstream"] == "32"
    assert "cpu=" in row["formula"]
    assert "task_memory_mb=256" in row["formula"]
    table = airflow(tmp_path, "tradewind-config", "explain").stdout
    assert "dag_processor.refresh_interval" in table


def test_explain_refuses_an_unknown_setting_and_hides_a_secret(tmp_path):
    done = airflow(tmp_path, "tradewind-config", "explain", "core.no_such_key", expect=2)
    assert "'core.no_such_key'" in done.stderr
    done = airflow(
        tmp_path,
        "tradewind-config",
        "explain",
        "core.fernet_key",
        "-o",
        "json",
        AIRFLOW__CORE__FERNET_KEY="c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ=",
    )
    assert "c2VjcmV0" not in done.stdout + done.stderr
    assert json.loads(done.stdout)[0]["source"] == "env var"


def test_on_postgres_the_engine_gets_the_smaller_pool(tmp_path, postgres):
    url = postgres.url(postgres.create_database())
    code = "from airflow import settings; print(settings.engine.pool.size(), settings.engine.pool._max_overflow)"
    done = run(tmp_path, "-c", code, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=url)
    assert done.stdout.split()[-2:] == ["3", "2"]
    done = run(tmp_path, "-c", code, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=url, TRADEWIND_ROLE="api-server")
    assert done.stdout.split()[-2:] == ["5", "5"]


def test_a_section_read_as_a_whole_has_our_values_too(tmp_path):
    code = CORE + "; s = conf.getsection('dag_processor'); print(s['refresh_interval'], s['parsing_processes'])"
    done = run(tmp_path, "-c", code, AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES="13")
    assert done.stdout.split()[-2:] == ["30", "13"]
