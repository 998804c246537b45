# SPDX-License-Identifier: Apache-2.0
"""`hatch run docs:build`: the documentation site, strict.

Each component keeps its docs in `packages/<name>/docs`; they are gathered beside the pages of `docs/` into
one source folder, so that a broken link between them fails the build.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import workspace

ROOT = workspace.ROOT

_RELATIVE_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)]+)\)")

CONFIG = """\
site_name: Tradewind Runtime
docs_dir: {docs}
site_dir: {site}
theme:
  name: material
  font: false
  features: [navigation.sections, content.code.copy]
markdown_extensions: [admonition, tables, toc, pymdownx.superfences]
plugins: [search]
validation:
  links:
    not_found: warn
    anchors: warn
nav:
  - Home: index.md
  - Contributing: contributing.md
  - Components:
{components}
"""


def gather(target: Path) -> str:
    """Copy all pages below one folder; returns the navigation's lines for the components."""
    # The README's links lead into the repository; on the site a component's page takes their place.
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (target / "index.md").write_text(_RELATIVE_LINK.sub(_site_link, readme), encoding="utf-8")
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (target / "contributing.md").write_text(_RELATIVE_LINK.sub(_site_link, contributing), encoding="utf-8")
    lines = []
    for component in workspace.read_components():
        shutil.copytree(ROOT / "packages" / component.name / "docs", target / component.name)
        lines.append(f"      - {component.distribution}:")
        for page in sorted((target / component.name).rglob("*.md"), key=lambda p: (p.name != "index.md", p)):
            lines.append(f"          - {page.relative_to(target).as_posix()}")
    return "\n".join(lines)


def _site_link(match: re.Match[str]) -> str:
    link = match.group(1)
    component = re.fullmatch(r"packages/([a-z_]+)/(?:README\.md)?", link)
    if component:
        return f"]({component.group(1)}/index.md)"
    if link == "CONTRIBUTING.md":
        return "](contributing.md)"
    # Files of the repository that have no page on the site are named, not linked.
    return f"] (`{link}`)" if (ROOT / link).exists() else match.group(0)


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Build the documentation site; any warning fails.")
    parser.add_argument("--site", type=Path, default=ROOT / "site", help="where the site is written")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="tradewind-docs-") as temporary:
        docs = Path(temporary) / "docs"
        docs.mkdir()
        components = gather(docs)
        config = Path(temporary) / "mkdocs.yml"
        config.write_text(CONFIG.format(docs=docs, site=args.site.resolve(), components=components), encoding="utf-8")
        return subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config)], check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
