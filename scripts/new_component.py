# SPDX-License-Identifier: Apache-2.0
"""Make a new component from the template and register it everywhere.

python scripts/new_component.py autoscaler "Worker autoscaling for Celery and Kubernetes."
"""

from __future__ import annotations

import argparse
import keyword
import re
import shutil
import sys
from pathlib import Path
from string import Template

import workspace

TEMPLATE = Path(__file__).resolve().parent / "component_template"

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def create(name: str, summary: str, root: Path = workspace.ROOT) -> Path:
    """Make `packages/<name>` and register it.

    Args:
        name: Lower-case Python identifier; the distribution becomes `tradewind-<name>`.
        summary: One sentence, shown on the package index and in the README's table.
        root: The workspace's root.

    Returns:
        The new folder.

    Raises:
        workspace.WorkspaceError: The name can't be used, or the component exists.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise workspace.WorkspaceError(
            f"component name {name!r}: expected a lower-case Python identifier, for example 'autoscaler'"
        )
    if not summary.strip() or '"' in summary or "\n" in summary:
        raise workspace.WorkspaceError(f'summary {summary!r}: expected one sentence without a " or a line break')
    target = root / "packages" / name
    if target.exists():
        raise workspace.WorkspaceError(f"{target} exists already")
    for source in sorted(TEMPLATE.rglob("*")):
        if source.is_dir() or "__pycache__" in source.parts:
            continue
        relative = Path(*(part.replace("__name__", name) for part in source.relative_to(TEMPLATE).parts))
        destination = target / relative
        destination.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8")
        destination.write_text(Template(text).substitute(name=name, summary=summary), encoding="utf-8")
    shutil.copy(root / "LICENSE", target / "LICENSE")
    register(name, root)
    return target


def register(name: str, root: Path = workspace.ROOT) -> None:
    """Add a component to compat.toml and the image's pins, and rewrite the generated lists."""
    component = workspace.read_component(root / "packages" / name)
    with (root / "compat.toml").open("a", encoding="utf-8") as file:
        file.write(
            f'\n[component.{name}]\nversion = "{component.version}"\n'
            f'airflow = "{component.airflow}"\npython = "{component.python}"\n'
        )
    pins = root / "image" / "components.toml"
    if pins.exists() and component.distribution not in pins.read_text(encoding="utf-8"):
        with pins.open("a", encoding="utf-8") as file:
            file.write(f'{component.distribution} = "{component.version}"\n')
    workspace.sync(root)


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make a component from the template and register it.")
    parser.add_argument("name", help="lower-case identifier, for example autoscaler")
    parser.add_argument("summary", help="one sentence for the package index and the README")
    args = parser.parse_args(argv)
    try:
        target = create(args.name, args.summary)
    except workspace.WorkspaceError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"made {target.relative_to(workspace.ROOT)}; next: hatch run component.{args.name}:test\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
