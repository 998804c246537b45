# SPDX-License-Identifier: Apache-2.0
"""One list of components for the whole workspace.

A component is a folder `packages/<name>/` with a `pyproject.toml`. Everything that has to name the
components (hatch sources, the component matrix, PYTHONPATH, mypy's path, import-linter's contracts,
the README's tables, the table of settings) lies between two markers and is written from that list:

    python scripts/workspace.py sync           # rewrite the generated blocks
    python scripts/workspace.py sync --check   # exit 1 and name each file that is out of date
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent

_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
_REQUIREMENT_NAME = re.compile(r"[A-Za-z0-9._-]+")


class WorkspaceError(Exception):
    """The tree does not follow the workspace's rules; the message says where and what would be right."""


@dataclass(frozen=True)
class Component:
    """One distribution of the workspace.

    Args:
        name: The folder's name, for example `config`.
        version: What its `_version.py` says.
        summary: The description in its pyproject.toml.
        airflow: The version specifier of its apache-airflow dependency, for example `>=3.3,<3.4`.
        python: Its requires-python.
        siblings: Names of the other components that its pyproject.toml depends on, with extras.
    """

    name: str
    version: str
    summary: str
    airflow: str
    python: str
    siblings: tuple[str, ...]

    @property
    def distribution(self) -> str:
        """The name on the package index."""
        return f"tradewind-{self.name}"


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file."""
    content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    return content


def read_component(folder: Path) -> Component:
    """Describe the component in a folder.

    Args:
        folder: `packages/<name>`.

    Raises:
        WorkspaceError: The folder lacks a version or is not named like its distribution.
    """
    project = load_toml(folder / "pyproject.toml")["project"]
    if project["name"] != f"tradewind-{folder.name}":
        raise WorkspaceError(
            f"{folder}/pyproject.toml: project.name is {project['name']!r}, expected 'tradewind-{folder.name}'"
        )
    version_file = folder / "src" / "tradewind" / folder.name / "_version.py"
    found = _VERSION.search(version_file.read_text(encoding="utf-8"))
    if found is None:
        raise WorkspaceError(f'{version_file}: no line `__version__ = "X.Y.Z"`')
    required = list(project.get("dependencies", []))
    for extra in project.get("optional-dependencies", {}).values():
        required += extra
    airflow = ""
    siblings: list[str] = []
    for requirement in required:
        match = _REQUIREMENT_NAME.match(requirement)
        name = match.group() if match else ""
        if name == "apache-airflow":
            airflow = requirement[len(name) :].strip()
        elif name.startswith("tradewind-"):
            siblings.append(name.removeprefix("tradewind-"))
    return Component(
        name=folder.name,
        version=found.group(1),
        summary=project["description"],
        airflow=airflow,
        python=project["requires-python"],
        siblings=tuple(sorted(set(siblings))),
    )


def read_components(root: Path = ROOT) -> list[Component]:
    """All components of the workspace, sorted by name."""
    return [read_component(path.parent) for path in sorted((root / "packages").glob("*/pyproject.toml"))]


def _sources(components: list[Component], value: str) -> str:
    return "\n".join(f"{c.distribution} = {value.format(name=c.name)}" for c in components)


def _importlinter(components: list[Component]) -> str:
    lines = ["[importlinter]", "root_packages ="]
    lines += [f"    tradewind.{c.name}" for c in components]
    for component in components:
        others = [c.name for c in components if c.name != component.name and c.name not in component.siblings]
        if not others:
            continue
        lines += [
            "",
            f"[importlinter:contract:{component.name}]",
            f"name = tradewind.{component.name} imports only what its pyproject.toml depends on",
            "type = forbidden",
            "source_modules =",
            f"    tradewind.{component.name}",
            "forbidden_modules =",
            *[f"    tradewind.{other}" for other in others],
        ]
    return "\n".join(lines)


def _component_table(components: list[Component]) -> str:
    rows = ["| component | install | what it gives | version |", "|---|---|---|---|"]
    rows += [
        f"| [`tradewind.{c.name}`](packages/{c.name}/README.md) | `pip install {c.distribution}` "
        f"| {c.summary} | {c.version} |"
        for c in components
    ]
    return "\n".join(rows)


def _compatibility_table(root: Path) -> str:
    compat = load_toml(root / "compat.toml")
    rows = ["| distribution | version | Airflow | Python |", "|---|---|---|---|"]
    for name, entry in sorted(compat["component"].items()):
        rows.append(f"| tradewind-{name} | {entry['version']} | {entry['airflow']} | {entry['python']} |")
    runtime = compat["runtime"]
    rows.append(
        f"| Runtime image | {runtime['version']} | {runtime['airflow']} | {', '.join(runtime['python'])} "
        f"(Debian {runtime['debian']}) |"
    )
    rows.append("")
    rows.append(
        f"Tested with Airflow {', '.join(compat['tested']['airflow'])} on Python "
        f"{', '.join(compat['tested']['python'])}."
    )
    return "\n".join(rows)


def _settings_table(root: Path) -> str:
    sys.path.insert(0, str(root / "packages" / "config" / "src"))
    try:
        from tradewind.config.profiles import RULES
    finally:
        sys.path.pop(0)
    rows = ["| setting | upstream | ours | applies to | why |", "|---|---|---|---|---|"]
    for rule in RULES:
        conditions = [", ".join(sorted(rule.roles)), ", ".join(sorted(rule.executors))]
        if rule.high_availability_only:
            conditions.append("profile `ha`")
        applies = "; ".join(condition for condition in conditions if condition) or "everything"
        rows.append(f"| `{'.'.join(rule.key)}` | {rule.upstream} | `{rule.formula}` | {applies} | {rule.reason} |")
    return "\n".join(rows)


def render(root: Path = ROOT) -> dict[Path, str]:
    """What every file with generated blocks should contain.

    Args:
        root: The workspace's root.

    Returns:
        Path to full text.

    Raises:
        WorkspaceError: A file lacks the markers of a block.
    """
    components = read_components(root)
    blocks: dict[str, dict[str, str]] = {
        "hatch.toml": {
            "default sources": _sources(components, "{{ workspace = true }}"),
            "component sources": _sources(components, '{{ path = "./packages/{name}" }}'),
            "component matrix": "component = [" + ", ".join(f'"{c.name}"' for c in components) + "]",
            "lint path": 'PYTHONPATH = "' + ":".join(f"packages/{c.name}/src" for c in components) + '"',
        },
        "mypy.ini": {
            "mypy path": "mypy_path = " + ", ".join(["scripts", *(f"packages/{c.name}/src" for c in components)])
        },
        ".importlinter": {"contracts": _importlinter(components)},
        "README.md": {
            "components": _component_table(components),
            "compatibility": _compatibility_table(root),
        },
        "packages/config/docs/index.md": {"settings": _settings_table(root)},
    }
    rendered: dict[Path, str] = {}
    for file, texts in blocks.items():
        path = root / file
        content = path.read_text(encoding="utf-8")
        for title, text in texts.items():
            content = _replace_block(content, title, text, path)
        rendered[path] = content
    return rendered


def _replace_block(content: str, title: str, text: str, path: Path) -> str:
    start, end = f"generated: {title}", f"end of generated: {title}"
    lines = content.splitlines()
    first = [i for i, line in enumerate(lines) if start in line and end not in line]
    last = [i for i, line in enumerate(lines) if end in line]
    if len(first) != 1 or len(last) != 1 or first[0] > last[0]:
        raise WorkspaceError(f"{path}: needs one line with '{start}' and, below it, one with '{end}'")
    padding = [""] if path.suffix == ".md" else []
    lines[first[0] + 1 : last[0]] = [*padding, *text.splitlines(), *padding]
    return "\n".join(lines) + "\n"


def sync(root: Path = ROOT, *, check: bool = False) -> list[Path]:
    """Bring the generated blocks up to date.

    Args:
        root: The workspace's root.
        check: Change nothing, only tell.

    Returns:
        The files that were (or, with `check`, are) out of date.
    """
    stale = [path for path, text in render(root).items() if path.read_text(encoding="utf-8") != text]
    if not check:
        texts = render(root)
        for path in stale:
            path.write_text(texts[path], encoding="utf-8")
    return stale


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Keep the workspace's lists of components in agreement.")
    parser.add_argument("command", choices=["sync"])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a list is stale")
    args = parser.parse_args(argv)
    try:
        stale = sync(check=args.check)
    except WorkspaceError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for path in stale:
        state = "out of date: run `python scripts/workspace.py sync`" if args.check else "updated"
        sys.stdout.write(f"{path.relative_to(ROOT)}: {state}\n")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
