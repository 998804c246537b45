# SPDX-License-Identifier: Apache-2.0
"""`hatch run release:check`: every wheel alone in a clean environment.

For each component: build sdist and wheel, check their metadata and contents, install the wheel with nothing
but its dependencies, and look whether Airflow lists it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from email.parser import Parser
from pathlib import Path

from rich.console import Console
from rich.table import Table

import workspace

ROOT = workspace.ROOT


class CheckError(Exception):
    """A wheel is not fit for release; the message says what is wrong."""


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> str:
    """Run a command and return its output.

    Raises:
        CheckError: It failed; its output is in the message.
    """
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CheckError(f"{' '.join(str(part) for part in command)}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def build(component: workspace.Component, target: Path) -> tuple[Path, list[Path]]:
    """Build a component; returns the wheel and everything that was built."""
    run("uv", "build", "--quiet", "--out-dir", target, ROOT / "packages" / component.name)
    built = sorted(path for path in target.iterdir() if path.suffix in {".whl", ".gz"})
    (wheel,) = [path for path in built if path.suffix == ".whl"]
    return wheel, built


def check_contents(component: workspace.Component, wheel: Path, built: list[Path]) -> None:
    """Check metadata and contents.

    Raises:
        CheckError: Something is missing, or something is in it that is not this component's.
    """
    run("twine", "check", "--strict", *built)
    # W009: the wheel has one top-level folder, the namespace. W004: a namespace has no __init__.py.
    run("check-wheel-contents", "--ignore", "W004,W009", wheel)
    package = f"tradewind/{component.name}/"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        foreign = [n for n in names if not n.startswith((package, f"tradewind_{component.name}-"))]
        if foreign:
            raise CheckError(f"{wheel.name} holds files of others: {', '.join(foreign)}")
        for needed in (f"{package}py.typed", f"{package}_version.py"):
            if needed not in names:
                raise CheckError(f"{wheel.name} lacks {needed}")
        (metadata_name,) = [n for n in names if n.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(metadata_name).decode())
        if not any(n.endswith("licenses/LICENSE") for n in names):
            raise CheckError(f"{wheel.name} lacks its LICENSE")
    if metadata["Version"] != component.version:
        raise CheckError(f"{wheel.name} says version {metadata['Version']}, the source {component.version}")
    if metadata["License-Expression"] != "Apache-2.0":
        raise CheckError(f"{wheel.name} says licence {metadata['License-Expression']!r}, expected Apache-2.0")


def check_installed(component: workspace.Component, wheel: Path, links: Path, folder: Path) -> str:
    """Install the wheel alone and look whether Airflow knows it; returns what Airflow shows.

    Raises:
        CheckError: It does not install, or Airflow does not list it.
    """
    environment = folder / "venv"
    run("uv", "venv", "--quiet", "--python", sys.executable, environment)
    env = {
        "VIRTUAL_ENV": str(environment),
        "UV_COMPILE_BYTECODE": "1",
        "AIRFLOW_HOME": str(folder / "home"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    for name in [name for name in os.environ if name.startswith(("PYTHONPATH", "AIRFLOW_", "TRADEWIND_"))]:
        env[name] = ""
    run("uv", "pip", "install", "--quiet", "--find-links", links, wheel, env=env)
    run("uv", "pip", "check", "--quiet", env=env)
    env = {name: value for name, value in env.items() if value}
    airflow = environment / "bin" / "airflow"
    shown = []
    providers = run(airflow, "providers", "list", "--output", "plain", env=env)
    if component.distribution not in providers:
        raise CheckError(f"`airflow providers list` does not show {component.distribution}:\n{providers}")
    shown.append("providers list")
    run(airflow, "db", "migrate", env=env)
    pyproject = workspace.load_toml(ROOT / "packages" / component.name / "pyproject.toml")
    if pyproject["project"]["entry-points"].get("airflow.plugins"):
        plugins = run(airflow, "plugins", "--output", "json", env=env)
        if component.distribution not in plugins:
            raise CheckError(f"`airflow plugins` does not show {component.distribution}:\n{plugins}")
        shown.append("plugins")
    return ", ".join(shown)


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Build every wheel, install each alone, check it.")
    parser.add_argument("components", nargs="*", help="names; all when left out")
    args = parser.parse_args(argv)
    console = Console()
    every = workspace.read_components()
    unknown = sorted(set(args.components) - {component.name for component in every})
    if unknown:
        sys.stderr.write(f"no component {', '.join(unknown)}: expected {', '.join(c.name for c in every)}\n")
        return 2
    chosen = [component for component in every if not args.components or component.name in args.components]
    table = Table("distribution", "version", "wheel", "Airflow shows it in", "seconds", title="Wheels")
    failed = False
    with tempfile.TemporaryDirectory(prefix="tradewind-release-") as temporary:
        links = Path(temporary) / "wheels"
        wheels = {}
        for component in every:
            folder = Path(temporary) / "built" / component.name
            wheels[component.name] = build(component, folder)
            links.mkdir(exist_ok=True)
            wheel = wheels[component.name][0]
            (links / wheel.name).write_bytes(wheel.read_bytes())
        for component in chosen:
            begin = time.monotonic()
            wheel, built = wheels[component.name]
            with console.status(f"checking {component.distribution} ..."):
                try:
                    check_contents(component, wheel, built)
                    folder = Path(temporary) / "clean" / component.name
                    folder.mkdir(parents=True)
                    shown = check_installed(component, wheel, links, folder)
                except CheckError as error:
                    failed = True
                    console.print(f"[red]{component.distribution}[/red]", str(error), markup=True, highlight=False)
                    continue
            size = f"{wheel.stat().st_size / 1024:.0f} KB"
            seconds = f"{time.monotonic() - begin:.1f}"
            table.add_row(component.distribution, component.version, size, shown, seconds)
    console.print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
