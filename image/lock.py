# SPDX-License-Identifier: Apache-2.0
"""Write the hashed locks of the third-party packages that the image installs.

    hatch run image:lock [--check] [--upgrade]

`locks/default.txt` is made of `locks/default.in` and what the components of `packages/` depend on,
`locks/build.txt` of `locks/build.in`. The index is uv's default or what the environment names; the locks
hold neither it nor a path of this machine.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

IMAGE = Path(__file__).resolve().parent
LOCKS = IMAGE / "locks"
PYTHON = "3.13"


def third_party(pyprojects: list[str]) -> list[str]:
    r"""Requirements that components have on packages which are not components.

    Args:
        pyprojects: The text of each component's `pyproject.toml`.

    >>> third_party(['[project]\ndependencies = ["apache-airflow>=3.3", "Tradewind_config>=0.1", "rich"]'])
    ['apache-airflow>=3.3', 'rich']
    """
    found = set[str]()
    for text in pyprojects:
        dependencies: list[str] = tomllib.loads(text)["project"].get("dependencies", [])
        found.update(d for d in dependencies if not re.match(r"tradewind[-_.]", d, re.IGNORECASE))
    return sorted(found)


def requirements(name: str, packages: Path) -> str:
    """The whole input of one lock."""
    text = (LOCKS / f"{name}.in").read_text(encoding="utf-8")
    if name == "default":
        pyprojects = [p.read_text(encoding="utf-8") for p in sorted(packages.glob("*/pyproject.toml"))]
        text += "\n".join(["", *third_party(pyprojects), ""])
    return text


def compile_lock(name: str, packages: Path, *, upgrade: bool) -> str:
    """Resolve one lock, with the tracked one's versions where they still fit.

    Args:
        name: `default` or `build`.
        packages: The folder of the components.
        upgrade: Take the newest versions instead.

    Returns:
        The lock's text.

    Raises:
        subprocess.CalledProcessError: uv found no solution; it has said why.
    """
    tracked = LOCKS / f"{name}.txt"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{name}.in").write_text(requirements(name, packages), encoding="utf-8")
        if tracked.exists() and not upgrade:
            (Path(folder) / f"{name}.txt").write_bytes(tracked.read_bytes())
        command = ["uv", "pip", "compile", "--quiet", "--no-config", "--universal"]
        command += ["--python-version", PYTHON, "--generate-hashes", "--only-binary", ":all:"]
        command += ["--no-emit-index-url", "--no-emit-find-links"]
        command += ["--custom-compile-command", "hatch run image:lock", "--output-file", f"{name}.txt"]
        subprocess.run([*command, f"{name}.in"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return (Path(folder) / f"{name}.txt").read_text(encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Write or compare the locks."""
    parser = argparse.ArgumentParser(prog="hatch run image:lock", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a lock is old")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    parser.add_argument("--packages", type=Path, default=IMAGE.parent / "packages", help="the components")
    options = parser.parse_args(arguments)
    console = Console(highlight=False, stderr=True)
    os.environ.pop("VIRTUAL_ENV", None)
    old = []
    for name in ("default", "build"):
        path = LOCKS / f"{name}.txt"
        try:
            text = compile_lock(name, options.packages, upgrade=options.upgrade)
        except subprocess.CalledProcessError as error:
            console.print(f"image/locks/{name}.in has no solution (uv exit {error.returncode})", style="red")
            return 1
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        versions = sum("==" in line for line in text.splitlines())
        if text == before:
            console.print(f"image/locks/{name}.txt is current: {versions} packages")
        elif options.check:
            old.append(name)
            changes = difflib.unified_diff(before.splitlines(), text.splitlines(), lineterm="", n=0)
            pins = [line for line in changes if "==" in line]
            console.print(f"image/locks/{name}.txt is old; `hatch run image:lock` writes it", style="red")
            console.print("\n".join(pins), markup=False)
        else:
            path.write_text(text, encoding="utf-8")
            console.print(f"image/locks/{name}.txt written: {versions} packages")
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
