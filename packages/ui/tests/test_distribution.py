# SPDX-License-Identifier: Apache-2.0
import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import tradewind.ui
from tradewind.ui import __version__


def entry_point(group):
    (found,) = [e for e in entry_points(group=group) if e.dist.name == "tradewind-ui"]
    return found


def public_modules():
    return [m.name for m in pkgutil.iter_modules(tradewind.ui.__path__) if not m.name.startswith("_")]


def test_the_installed_distribution_has_the_version_of_the_source():
    assert version("tradewind-ui") == __version__


def test_airflow_finds_the_provider_under_the_distributions_name():
    assert entry_point("apache_airflow_provider").load()()["package-name"] == "tradewind-ui"


def test_airflow_finds_the_plugin():
    from airflow.plugins_manager import is_valid_plugin

    assert is_valid_plugin(entry_point("airflow.plugins").load())


def test_airflow_knows_the_settings_of_the_footer():
    import airflow

    options = entry_point("apache_airflow_provider").load()()["config"]["tradewind_ui"]["options"]
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text(encoding="utf-8"))
    for option in options.values():
        assert set(schema["definitions"]["option"]["required"]) <= set(option)
    assert options["footer_enabled"]["default"] == "True"


@pytest.mark.parametrize("module", ["runtime_info", "middleware", "_provider_info", "exceptions"])
def test_the_module_imports_nothing_of_airflow(module):
    program = f"import sys, tradewind.ui.{module}; print('airflow' in sys.modules, 'starlette' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "False"]


def test_loading_the_plugin_imports_nothing_of_the_web_stack():
    program = (
        "import airflow.plugins_manager, sys; before = set(sys.modules); import tradewind.ui.plugin as p; "
        "p.TradewindUIPlugin(); print(*sorted(m for m in set(sys.modules) - before if m != 'tradewind'))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(ended.stdout.split()) <= {"tradewind.ui", "tradewind.ui._version", "tradewind.ui.plugin"}
    assert "tradewind.ui.plugin" in ended.stdout.split()


@pytest.mark.parametrize("name", public_modules())
def test_a_public_modules_all_is_its_sorted_public_names(name):
    module = importlib.import_module(f"tradewind.ui.{name}")
    assert module.__all__ == sorted(module.__all__, key=lambda n: (not n.isupper(), n))
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    defined = {n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)}
    public = {d for d in defined if not d.startswith("_")}
    assert public <= set(module.__all__)
