# SPDX-License-Identifier: Apache-2.0
"""`lint`, `schema`, `export` and `import-fab`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradewind.security.cli.deployment import opened
from tradewind.security.cli.output import Result, command, note
from tradewind.security.exceptions import ConflictError, InvalidValueError, StoreUnavailableError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from tradewind.security.fab import Imported

__all__ = ["export", "import_fab", "lint", "schema"]


@command
def lint(args: Namespace) -> Result:
    """Find mistakes in a policy."""
    from tradewind.security.policy.lint import lint as find
    from tradewind.security.policy.loader import PolicyLoader

    with opened() as deployment:
        if args.file is not None:
            # Perhaps of another deployment, or in CI: what is in this database says nothing about it.
            findings = find(PolicyLoader(args.file).current())
        else:
            findings = find(deployment.policy, **_known())
    bad = any(finding.severity != "info" for finding in findings)
    return Result([asdict(finding) for finding in findings], nothing="nothing found", code=1 if bad else 0)


def _known() -> dict[str, Any]:
    from tradewind.security.store import bindings, teams

    try:
        stored = tuple((f"binding {one.id} of the database", one.binding) for one in bindings.list_bindings())
        return {"bindings": stored, "teams": [team.name for team in teams.list_teams()]}
    except StoreUnavailableError as error:
        note(f"only the file was looked at: {error}")
        return {}


@command
def schema(args: Namespace) -> Result:
    """Print the JSON Schema."""
    from tradewind.security.policy.json_schema import text

    return Result(text())


@command
def export(args: Namespace) -> Result:
    """Print policy and bindings as one policy file."""
    with opened() as deployment:
        policy = deployment.policy.file.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        stored = [
            one.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
            for one in deployment.directory.snapshot().bindings
        ]
    bindings = [*policy.pop("bindings", []), *stored]
    return Result(_yaml({**policy, "bindings": bindings} if bindings else policy))


@command
def import_fab(args: Namespace) -> Result:
    """Make a policy of Flask-AppBuilder's tables."""
    from airflow.models.base import metadata
    from airflow.utils.session import create_session

    from tradewind.security import fab
    from tradewind.security.policy.loader import parse

    with opened() as deployment:
        here = deployment.policy.file
    with create_session(scoped=False) as session:
        tables = fab.read(session, schema=metadata.schema, by=args.user_id)
    imported = fab.convert(tables, organization=here.organization, workspace=here.workspace, deployment=here.deployment)
    text = _yaml(imported.policy)
    # What can't be loaded again must not be handed out.
    parse(text, args.output or "the imported policy")
    if args.output is None:
        note(_report(imported, args.report))
        return Result(text)
    path = Path(args.output)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConflictError(f"{path} exists already; it was left as it is") from None
    except OSError as error:
        raise InvalidValueError(f"{path} can't be written: {error.strerror}") from None
    note(f"{path} was written: look at it, then set [tradewind_security] policy_file")
    report = [asdict(one) for one in imported.report]
    return Result(report, nothing="everything was carried over", form=args.report)


def _report(imported: Imported, form: str) -> str:
    if form == "json":
        return json.dumps([asdict(one) for one in imported.report])
    return "\n".join(f"{one.severity}: {one.what}: {one.why}" for one in imported.report)


def _yaml(policy: Mapping[str, object]) -> str:
    import yaml

    body = yaml.safe_dump(dict(policy), sort_keys=False, allow_unicode=True, width=120)
    return str(body)
