# SPDX-License-Identifier: Apache-2.0
"""Write the facts about the image that the builder stage knows.

- `runtime.json`: the versions of everything that has a name;
- `constraints/essential.txt`: what a project's requirements must not replace;
- `airflow-commands`: the first words that the entrypoint gives to `airflow`.

    RUNTIME_VERSION=... IMAGE_VARIANT=... SOURCE_DATE_EPOCH=... python describe.py FOLDER
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import tempfile
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path


def installed() -> dict[str, str]:
    """Versions of the installed distributions, by normalized name."""
    found = {re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(): d.version for d in distributions()}
    return dict(sorted(found.items()))


def runtime(packages: dict[str, str]) -> dict[str, object]:
    """What the user interface and support ask for first."""
    built = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), tz=timezone.utc)
    return {
        "version": os.environ["RUNTIME_VERSION"],
        "airflow": packages["apache-airflow"],
        "python": platform.python_version(),
        "debian": platform.freedesktop_os_release()["VERSION_ID"],
        "variant": os.environ["IMAGE_VARIANT"],
        "components": {n: v for n, v in packages.items() if n.startswith("tradewind-")},
        "built": built.isoformat().replace("+00:00", "Z"),
    }


def airflow_commands() -> list[str]:
    """Airflow's commands, those of its providers included."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["AIRFLOW_HOME"] = home  # importing Airflow writes a configuration there
        from airflow.cli.cli_parser import ALL_COMMANDS_DICT

        return sorted(ALL_COMMANDS_DICT)


def main(folder: Path) -> int:
    """Write all of it."""
    packages = installed()
    essential = [
        f"{name}=={version}\n"
        for name, version in packages.items()
        if re.match(r"apache-airflow(-|$)|tradewind-", name)
    ]
    (folder / "constraints").mkdir(parents=True)
    (folder / "constraints" / "essential.txt").write_text("".join(essential), encoding="utf-8")
    (folder / "runtime.json").write_text(json.dumps(runtime(packages), indent=2) + "\n", encoding="utf-8")
    commands = "".join(f"{name}\n" for name in airflow_commands())
    (folder / "airflow-commands").write_text(commands, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
