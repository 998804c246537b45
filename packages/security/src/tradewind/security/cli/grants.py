# SPDX-License-Identifier: Apache-2.0
"""`bindings`, `tokens` and `audit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tradewind.security.cli.deployment import opened, operator
from tradewind.security.cli.output import Result, command, note
from tradewind.security.exceptions import InvalidValueError, NotFoundError

if TYPE_CHECKING:
    from argparse import Namespace

    from tradewind.security.policy.loader import Policy
    from tradewind.security.policy.schema import Binding
    from tradewind.security.store.records import TokenRecord

__all__ = [
    "audit",
    "bindings_create",
    "bindings_delete",
    "bindings_list",
    "tokens_create",
    "tokens_list",
    "tokens_revoke",
    "tokens_rotate",
]

_MOST_EVENTS = 10_000
_LIMITS = {
    "dags": ("dag", ("id", "tag", "bundle", "team")),
    "connections": ("connection", ("id", "team")),
    "variables": ("variable", ("id", "team")),
    "pools": ("pool", ("id", "team")),
}
_LEVELS = {"organization": "organization", "workspace": "workspace", "deployment": "deployment", "dag": "deployment"}


@command
def bindings_list(args: Namespace) -> Result:
    """List all bindings."""
    from tradewind.security.store import bindings

    with opened() as deployment:
        policy = deployment.policy
        stored = bindings.list_bindings()
    rows = [
        *(_row(None, binding, source) for source, binding in policy.bindings),
        *(_row(one.id, one.binding, f"database, by {one.created_by}") for one in stored),
    ]
    return Result(rows, nothing="there is no binding")


@command
def bindings_create(args: Namespace) -> Result:
    """Give a role to somebody."""
    from tradewind.security.policy.loader import check_binding
    from tradewind.security.store import bindings

    with opened() as deployment:
        policy = deployment.policy
        values: dict[str, object] = {
            kind: value for kind in ("user", "group", "team", "service") if (value := getattr(args, kind)) is not None
        }
        values |= {"role": args.role, "scope": args.scope or _scope(policy, args.role)}
        for key, (flag, parts) in _LIMITS.items():
            chosen = {f"{part}s": given for part in parts if (given := getattr(args, f"{flag}_{part}"))}
            if chosen:
                values[key] = chosen
        binding = bindings.parse(values)
        problems = [f"{key}: {message}" for key, message in check_binding(binding, policy.roles)]
        issuers = [issuer.name for issuer in policy.file.issuers]
        if binding.group is not None and binding.group.partition(":")[0] not in issuers:
            problems.append(
                f"group {binding.group!r}: expected <issuer>:<group> of {', '.join(issuers) or 'an issuer'}"
            )
        if problems:
            raise InvalidValueError("; ".join(problems))
        made = bindings.create(binding, created_by=operator())
        row = _row(made.id, made.binding, f"database, by {made.created_by}")
        deployment.record("binding.created", binding_id=made.id, binding=_plain(made.binding))
    return Result(row)


@command
def bindings_delete(args: Namespace) -> Result:
    """Take a role away."""
    from tradewind.security.store import bindings

    with opened() as deployment:
        was = next((_plain(one.binding) for one in bindings.list_bindings() if one.id == args.id), None)
        bindings.delete(args.id)
        deployment.record("binding.deleted", binding_id=args.id, binding=was)
    return Result("")


@command
def tokens_create(args: Namespace) -> Result:
    """Make a token."""
    from tradewind.security.store import tokens, users

    scopes = None if args.scopes is None else [one.strip() for one in args.scopes.split(",") if one.strip()]
    try:
        users.get(args.user)
    except NotFoundError:
        note(f"{args.user!r} is not a local user; the token works for somebody of this id at an identity provider")
    with opened() as deployment:
        made, token = tokens.create(
            args.user, args.name, scopes, expires_in=_seconds("--expires-in", args.expires_in), groups=args.group
        )
        deployment.record("token.created", token_id=made.id, owner=made.owner, scopes=made.scopes, name=made.name)
    return Result({**_token(made), "token": token})


@command
def tokens_list(args: Namespace) -> Result:
    """List tokens."""
    from tradewind.security.store import tokens

    return Result([_token(one) for one in tokens.list_tokens(args.user)], nothing="there is no token")


@command
def tokens_rotate(args: Namespace) -> Result:
    """Replace a token."""
    from tradewind.security.store import tokens

    with opened() as deployment:
        made, token = tokens.rotate(args.id, _seconds("--overlap", args.overlap))
        deployment.record("token.rotated", token_id=made.id, rotated_from=args.id, owner=made.owner)
    return Result({**_token(made), "token": token})


@command
def tokens_revoke(args: Namespace) -> Result:
    """End a token."""
    from tradewind.security.store import tokens

    with opened() as deployment:
        tokens.revoke(args.id)
        deployment.record("token.revoked", token_id=args.id)
    return Result("")


@command
def audit(args: Namespace) -> Result:
    """Show the last events."""
    from tradewind.security.audit import tail

    if not 0 < args.limit <= _MOST_EVENTS:
        raise InvalidValueError(f"--limit {args.limit}: expected 1 to {_MOST_EVENTS}")
    events = tail(args.limit, event=args.event, subject=args.subject, outcome=args.outcome)
    columns = ("timestamp", "event", "outcome", "subjectId", "reason", "method", "path", "status", "details")
    return Result(
        events,
        rows=[{column: event.get(column) for column in columns} for event in events],
        nothing="there is no such event in the table; is 'table:' among [tradewind_security] audit?",
    )


def _scope(policy: Policy, role: str) -> str:
    """Where a role of this deployment is bound if nothing else is said."""
    if role not in policy.roles:
        raise NotFoundError(f"there is no role {role!r}; known: {', '.join(sorted(policy.roles))}")
    level = _LEVELS.get(policy.roles[role].scope)
    if level is None:
        raise InvalidValueError(f"role {role!r} is bound at a team: expected --scope team/<name>")
    return f"{level}/{getattr(policy.file, level)}"


def _seconds(flag: str, text: str) -> int:
    from tradewind.security.policy.schema import seconds

    try:
        return int(str(seconds(text)))
    except ValueError as error:
        raise InvalidValueError(f"{flag}: {error}") from None


def _plain(binding: Binding) -> dict[str, object]:
    return dict(binding.model_dump(mode="json", exclude_defaults=True, exclude_none=True))


def _row(number: int | None, binding: Binding, source: str) -> dict[str, object]:
    limits = {key: value for key, value in _plain(binding).items() if key in _LIMITS}
    return {
        "id": number,
        "subject": ":".join(binding.subject),
        "role": binding.role,
        "scope": binding.scope,
        "limits": limits,
        "source": source,
    }


def _token(record: TokenRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "name": record.name,
        "owner": record.owner,
        "scopes": None if record.scopes is None else sorted(record.scopes),
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "last_used_at": record.last_used_at,
        "revoked_at": record.revoked_at,
        "rotated_from": record.rotated_from,
    }
