# SPDX-License-Identifier: Apache-2.0
"""The house rules, checked on the tree itself."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import workspace
from workspace import Component, load_toml

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = workspace.read_components(ROOT)
NAMES = [component.name for component in COMPONENTS]


def parametrize_components():
    return pytest.mark.parametrize("component", COMPONENTS, ids=NAMES)


def test_every_list_of_components_agrees_with_the_folders():
    assert workspace.sync(ROOT, check=True) == []


def test_there_is_no_root_project_and_the_namespace_has_no_init():
    assert not (ROOT / "pyproject.toml").exists()
    assert list(ROOT.glob("packages/*/src/tradewind/__init__.py")) == []


@parametrize_components()
def test_a_component_is_complete(component: Component):
    folder = ROOT / "packages" / component.name
    for file in ("README.md", "CHANGELOG.md", "LICENSE", "towncrier.toml", "docs/index.md"):
        assert (folder / file).is_file(), file
    assert (folder / "src" / "tradewind" / component.name / "py.typed").is_file()
    assert list((folder / "examples").glob("*.py")), "an example Dag"
    assert f"## {component.version}" in (folder / "CHANGELOG.md").read_text()
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@parametrize_components()
def test_a_component_declares_what_the_compatibility_table_says(component: Component):
    entry = load_toml(ROOT / "compat.toml")["component"][component.name]
    assert (entry["version"], entry["airflow"], entry["python"]) == (
        component.version,
        component.airflow,
        component.python,
    )


def test_the_compatibility_table_names_the_runtime_that_the_tree_builds():
    runtime = load_toml(ROOT / "compat.toml")["runtime"]
    newest = load_toml(ROOT / "image" / "releases.toml")["release"][0]
    assert {key: newest[key] for key in ("version", "airflow", "python", "debian")} == runtime


def test_the_tested_versions_are_those_of_the_matrix():
    matrices = load_toml(ROOT / "hatch.toml")["envs"]["matrix"]["matrix"]
    tested = load_toml(ROOT / "compat.toml")["tested"]
    for axis, values in tested.items():
        assert sorted({value for matrix in matrices for value in matrix[axis]}) == sorted(values)


def public_modules(component: Component) -> list[str]:
    path = str(ROOT / "packages" / component.name / "src" / "tradewind" / component.name)
    prefix = f"tradewind.{component.name}."
    return [m.name for m in pkgutil.iter_modules([path], prefix) if not m.name.split(".")[-1].startswith("_")]


@parametrize_components()
def test_public_modules_list_exactly_their_public_names(component: Component, airflow_db):
    modules = [importlib.import_module(name) for name in public_modules(component)]
    for module in [importlib.import_module(f"tradewind.{component.name}"), *modules]:
        listed = set(module.__all__)
        defined = {
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        }
        missing = {name for name in listed if not hasattr(module, name)}
        assert defined <= listed, f"{module.__name__}: not in __all__: {defined - listed}"
        assert not missing, f"{module.__name__}: in __all__, but not there: {missing}"


@parametrize_components()
def test_importing_a_component_or_its_entry_points_loads_nothing_heavy(component: Component):
    code = (
        "import sys; from importlib.metadata import entry_points\n"
        f"import tradewind.{component.name}\n"
        "for e in entry_points(group='apache_airflow_provider'):\n"
        f"    e.dist.name == 'tradewind-{component.name}' and e.load()\n"
        "heavy = {'airflow.configuration', 'airflow.settings', 'sqlalchemy', 'fastapi', 'pydantic', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_every_source_file_names_its_licence():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py", "*.sh", "*.js"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    assert len(listed) > 30
    for name in listed:
        head = "\n".join((ROOT / name).read_text().splitlines()[:3])
        assert "SPDX-License-Identifier: Apache-2.0" in head, name


def copy_workspace(target: Path) -> Path:
    for name in ("scripts", "packages", "image"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.tar*"))
    for name in ("hatch.toml", "mypy.ini", ".importlinter", "README.md", "compat.toml", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    return target


def run_script(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        cwd=root,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_new_component_is_made_from_the_template_and_registered_everywhere(tmp_path):
    root = copy_workspace(tmp_path)
    done = run_script(root, "scripts/new_component.py", "pilot", "Does one thing.")
    assert done.returncode == 0, done.stderr
    made = workspace.read_component(root / "packages" / "pilot")
    assert (made.version, made.summary) == ("0.1.0", "Does one thing.")
    for file in ("hatch.toml", "mypy.ini", ".importlinter", "README.md", "compat.toml", "image/components.toml"):
        assert "pilot" in (root / file).read_text(), file
    assert run_script(root, "scripts/workspace.py", "sync", "--check").returncode == 0
    assert not re.search(r"\$(name|summary)", "".join(p.read_text() for p in (root / "packages/pilot").rglob("*.py")))
    module = "import tradewind.pilot._provider_info as p; print(p.get_provider_info()['package-name'])"
    done = subprocess.run(
        [sys.executable, "-c", module],
        env={**os.environ, "PYTHONPATH": str(root / "packages/pilot/src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.strip() == "tradewind-pilot", done.stderr


@pytest.mark.parametrize("name", ["Pilot", "1st", "class", "a-b", "../evil", "config"])
def test_a_name_that_cannot_be_a_component_is_refused(tmp_path, name):
    root = copy_workspace(tmp_path)
    before = (root / "hatch.toml").read_text()
    done = run_script(root, "scripts/new_component.py", name, "Does one thing.")
    assert done.returncode == 2
    assert name in done.stderr
    assert (root / "hatch.toml").read_text() == before


def test_a_stale_list_is_found_and_named(tmp_path):
    root = copy_workspace(tmp_path)
    text = (root / "hatch.toml").read_text()
    (root / "hatch.toml").write_text(text.replace('component = ["config", ', "component = ["))
    done = run_script(root, "scripts/workspace.py", "sync", "--check")
    assert done.returncode == 1
    assert "hatch.toml" in done.stdout


def test_an_import_of_another_component_is_caught(tmp_path):
    root = copy_workspace(tmp_path)
    target = root / "packages" / "ui" / "src" / "tradewind" / "ui" / "_bad.py"
    target.write_text("from tradewind.config import resources\n")
    path = ":".join(str(root / f"packages/{name}/src") for name in NAMES)
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stdout
    assert "tradewind.ui imports only what its pyproject.toml depends on BROKEN" in done.stdout
