# SPDX-License-Identifier: Apache-2.0
"""Makes a policy of what Flask-AppBuilder's tables say, for moving from FabAuthManager.

Follows `FabAuthManager.is_authorized_*` of apache-airflow-providers-fab 3.10: what it refuses is not granted, and
what it grants beyond that has no equivalent here is reported. Reads `ab_*` tables; needs no Flask and no provider.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tradewind.security.exceptions import NotFoundError, StoreUnavailableError
from tradewind.security.fab_rights import NOT_CARRIED, Permission, Rights, known, rights_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.orm import Session

__all__ = ["FabTables", "FabUser", "Imported", "Note", "convert", "read"]

_LONGEST_ROLE = 64
_LONGEST_SUBJECT = 250


@dataclass(frozen=True)
class FabUser:
    """A row of `ab_user`.

    Args:
        id: The username, or the address if those are wanted.
        active: Whether logins are accepted.
        password: Whether there is a local password.
        roles: Names of roles.
        groups: Names of groups.
    """

    id: str
    active: bool
    password: bool
    roles: frozenset[str]
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True)
class FabTables:
    """What the tables say.

    Args:
        roles: Pairs of action and resource of each role.
        users: All users.
        groups: Roles of each group.
    """

    roles: Mapping[str, frozenset[Permission]]
    users: tuple[FabUser, ...]
    groups: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Note:
    """Something that a person should know of the conversion.

    Args:
        severity: `action` (somebody has to do something), `warning` (somebody can do less than before) or `info`.
        what: What it is about.
        why: Why, and what to do.
    """

    severity: Literal["action", "warning", "info"]
    what: str
    why: str


@dataclass(frozen=True)
class Imported:
    """The result.

    Args:
        policy: A policy file's content, as plain values.
        report: What was not carried over, the most urgent first.
    """

    policy: dict[str, object]
    report: tuple[Note, ...]


def read(session: Session, *, schema: str | None = None, by: Literal["username", "email"] = "username") -> FabTables:
    """Read Flask-AppBuilder's tables.

    Args:
        session: Session of Airflow's metadata database.
        schema: The database schema that they are in.
        by: What users are known by here.

    Raises:
        NotFoundError: There are no such tables.
        StoreUnavailableError: The database does not answer.
    """
    from sqlalchemy import inspect
    from sqlalchemy.exc import SQLAlchemyError

    try:
        present = set(inspect(session.connection()).get_table_names(schema=schema))
        if "ab_user" not in present or "ab_role" not in present:
            raise NotFoundError("there are no tables of Flask-AppBuilder (ab_user, ab_role) in the metadata database")
        return _read(session, schema, by, with_groups="ab_group" in present)
    except SQLAlchemyError as error:
        raise StoreUnavailableError(f"Flask-AppBuilder's tables can't be read: {type(error).__name__}") from None


def _read(session: Session, schema: str | None, by: str, *, with_groups: bool) -> FabTables:
    from sqlalchemy import column, select, table

    def rows(name: str, *columns: str) -> Iterator[tuple[object, ...]]:
        source = table(name, *(column(one) for one in columns), schema=schema)
        yield from (tuple(row) for row in session.execute(select(*source.columns)))

    actions: dict[object, object] = dict(rows("ab_permission", "id", "name"))  # type: ignore[arg-type] # two columns
    resources: dict[object, object] = dict(rows("ab_view_menu", "id", "name"))  # type: ignore[arg-type] # two columns
    pairs = {
        number: (str(actions[action]), str(resources[resource]))
        for number, action, resource in rows("ab_permission_view", "id", "permission_id", "view_menu_id")
        if action in actions and resource in resources
    }
    names = {number: str(name) for number, name in rows("ab_role", "id", "name")}
    granted: dict[str, set[Permission]] = {name: set() for name in names.values()}
    for role, pair in rows("ab_permission_view_role", "role_id", "permission_view_id"):
        if role in names and pair in pairs:
            granted[names[role]].add(pairs[pair])
    held: defaultdict[object, set[str]] = defaultdict(set)
    for user, role in rows("ab_user_role", "user_id", "role_id"):
        if role in names:
            held[user].add(names[role])
    member: defaultdict[object, set[str]] = defaultdict(set)
    groups: dict[object, str] = {}
    group_roles: defaultdict[str, set[str]] = defaultdict(set)
    if with_groups:
        groups = {number: str(name) for number, name in rows("ab_group", "id", "name")}
        for group, role in rows("ab_group_role", "group_id", "role_id"):
            if group in groups and role in names:
                group_roles[groups[group]].add(names[role])
        for user, group in rows("ab_user_group", "user_id", "group_id"):
            if group in groups:
                member[user].add(groups[group])
    users = tuple(
        FabUser(str(name), bool(active), bool(password), frozenset(held[number]), frozenset(member[number]))
        for number, name, active, password in rows("ab_user", "id", by, "active", "password")
    )
    return FabTables(
        {name: frozenset(pairs) for name, pairs in sorted(granted.items())},
        tuple(sorted(users, key=lambda user: user.id)),
        {name: frozenset(group_roles[name]) for name in sorted(groups.values())},
    )


def convert(
    tables: FabTables, *, organization: str = "default", workspace: str = "default", deployment: str = "default"
) -> Imported:
    """Make a policy.

    Args:
        tables: What `read` gave.
        organization: The organization that the deployment belongs to.
        workspace: The workspace that it belongs to.
        deployment: Its name, which roles are bound at.
    """
    writer = _Writer(f"deployment/{deployment}")
    notes = [*_notes_of_roles(tables), *_notes_of_users(tables)]
    for name, permissions in tables.roles.items():
        writer.role(frozenset({name}), rights_of(permissions))
    for user in tables.users:
        if user.active and _usable(user.id):
            notes.extend(_bind(writer, tables, user))
    policy: dict[str, object] = {
        "version": 1,
        "organization": organization,
        "workspace": workspace,
        "deployment": deployment,
        "roles": writer.roles,
        "bindings": writer.bindings,
    }
    order = ("action", "warning", "info")
    unique = dict.fromkeys(notes)
    return Imported(policy, tuple(sorted(unique, key=lambda note: (order.index(note.severity), note.what))))


def _bind(writer: _Writer, tables: FabTables, user: FabUser) -> Iterator[Note]:
    alone = {name: rights_of(tables.roles[name]) for name in sorted(user.roles)}
    together = rights_of(frozenset().union(*(tables.roles[name] for name in user.roles)))
    if _adds_up(list(alone.values()), together):
        for name, rights in alone.items():
            writer.bind(user.id, frozenset({name}), rights)
        return
    writer.bind(user.id, user.roles, together)
    listed = " and ".join(repr(name) for name in sorted(user.roles))
    yield Note(
        "info",
        f"roles {listed}",
        "in FAB they mean more together than each for itself (one has the Dag, another what the Dag has), "
        "so users with both got a role of its own",
    )


def _adds_up(parts: list[Rights], together: Rights) -> bool:
    """Whether bindings of the single roles grant exactly what FAB grants for all of them."""
    base = frozenset().union(*(part.base for part in parts))
    if base != together.base:
        return False
    summed: defaultdict[str, set[str]] = defaultdict(set)
    for part in parts:
        for cells, ids in part.selected:
            for dag_id in ids:
                summed[dag_id] |= cells
    expected: defaultdict[str, set[str]] = defaultdict(set)
    for cells, ids in together.selected:
        for dag_id in ids:
            expected[dag_id] |= cells
    if {dag: cells - base for dag, cells in summed.items()} != {dag: cells - base for dag, cells in expected.items()}:
        return False
    # A list without an id is for who holds the cell by every binding that shows Dags.
    shown = {
        frozenset(cell for cell in cells if cell.endswith(":GET"))
        for part in parts
        for cells, _ in part.selected
        if "dag:GET" in cells
    }
    return "dag:GET" in base or len(shown) <= 1


class _Writer:
    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.roles: dict[str, dict[str, object]] = {}
        self.bindings: list[dict[str, object]] = []
        self._names: dict[tuple[frozenset[str], int], str] = {}
        self._dags: dict[frozenset[str], dict[str, list[str]]] = {}

    def role(self, fab_roles: frozenset[str], rights: Rights) -> None:
        for number, (cells, ids) in enumerate(_parts(rights)):
            if (fab_roles, number) in self._names:
                continue
            name = self._name(fab_roles, number)
            self._names[fab_roles, number] = name
            source = " and ".join(f"'{role}'" for role in sorted(fab_roles))
            self.roles[name] = {
                "scope": "deployment" if ids is None else "dag",
                "description": f"From FAB's {source}" + ("" if ids is None else ", for chosen Dags"),
                "allow": sorted(cells),
            }

    def bind(self, user: str, fab_roles: frozenset[str], rights: Rights) -> None:
        self.role(fab_roles, rights)
        for number, (_, ids) in enumerate(_parts(rights)):
            binding: dict[str, object] = {
                "user": user,
                "role": self._names[fab_roles, number],
                "scope": self.scope,
            }
            if ids is not None:
                # One object for all users, which YAML then writes once.
                binding["dags"] = self._dags.setdefault(ids, {"ids": sorted(ids)})
            self.bindings.append(binding)

    def _name(self, fab_roles: frozenset[str], number: int) -> str:
        slug = "-".join(re.sub(r"[^A-Za-z0-9_]+", "_", role) for role in sorted(fab_roles))
        tail = f".{number}" if number else ""
        name, count = f"fab_{slug}"[: _LONGEST_ROLE - len(tail)] + tail, 1
        while name in self.roles:
            count += 1
            name = f"fab_{slug}"[: _LONGEST_ROLE - len(tail) - len(str(count)) - 1] + f"_{count}{tail}"
        return name


def _parts(rights: Rights) -> list[tuple[frozenset[str], frozenset[str] | None]]:
    everywhere: list[tuple[frozenset[str], frozenset[str] | None]] = [(rights.base, None)] if rights.base else []
    return [*everywhere, *rights.selected]


def _usable(user: str) -> bool:
    return 0 < len(user) <= _LONGEST_SUBJECT and user.isprintable() and user == user.strip()


def _notes_of_roles(tables: FabTables) -> Iterator[Note]:
    missing: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for role, permissions in tables.roles.items():
        for action, resource in permissions:
            if not known(action, resource):
                reason = next((why for names, why in NOT_CARRIED if resource in names), None)
                why = reason or (
                    "a view of a plugin, or a permission that Airflow's API does not ask for; the cells custom_view:* "
                    "are for all plugins' views together"
                )
                missing[why, resource].add(f"{action} (role {role!r})")
        yield from _notes_of_dags(role, permissions)
    for (why, resource), uses in sorted(missing.items()):
        yield Note("info", f"{', '.join(sorted(uses))} on {resource!r}", why)
    managers = sorted(
        user.id
        for user in tables.users
        if user.active and any(("can_edit", "Roles") in tables.roles[name] for name in user.roles)
    )
    yield Note(
        "action",
        "administrators",
        "who may give roles here is not decided by FAB's permissions: bind org_owner, ws_owner or deployment_admin"
        + (f"; in FAB these can edit roles: {', '.join(managers)}" if managers else ""),
    )
    if tables.roles.get("Public"):
        yield Note(
            "warning", "role 'Public'", "there is no access without a login; auth_role_public is not carried over"
        )
    yield Note(
        "action",
        "webserver_config.py",
        "is not read: LDAP, OAuth, AUTH_ROLES_MAPPING and a SECURITY_MANAGER_CLASS have to become 'issuers' and "
        "bindings of groups",
    )


def _notes_of_dags(role: str, permissions: frozenset[Permission]) -> Iterator[Note]:
    writes = any(
        action in {"can_create", "can_edit", "can_delete"} and resource == "DAG Runs"
        for action, resource in permissions
    )
    if writes and ("can_edit", "DAGs") not in permissions:
        yield Note(
            "warning",
            f"role {role!r}",
            "FAB lets it write runs where a request names no Dag, without asking whether it may edit all Dags; "
            "here that needs the right for every Dag",
        )
    odd = sorted(
        resource
        for _, resource in permissions
        if resource.startswith(("DAG:", "DAG Run:")) and not re.fullmatch(r"[\w.-]{1,250}", resource.partition(":")[2])
    )
    for resource in odd:
        yield Note("warning", f"role {role!r} on {resource!r}", "no Dag can have such an id, so it is left out")


def _notes_of_users(tables: FabTables) -> Iterator[Note]:
    passwords = sum(user.active and user.password for user in tables.users)
    if passwords:
        yield Note(
            "action",
            f"passwords of {passwords} users",
            "can't be carried over: let them log in by your identity provider, or make local users with "
            "'airflow tradewind-auth users create'",
        )
    for user in tables.users:
        if not user.active:
            yield Note("info", f"user {user.id!r}", "is not active and was left out")
        elif not _usable(user.id):
            yield Note(
                "warning", f"user {user.id!r:.300}", "can't be an id here: expected 1 to 250 printable characters"
            )
        elif not user.roles:
            yield Note("info", f"user {user.id!r}", "has no role and gets none")
        by_group = sorted(set().union(*(tables.groups.get(group, frozenset()) for group in user.groups)) - user.roles)
        if user.active and by_group:
            yield Note(
                "warning",
                f"user {user.id!r}",
                f"has {', '.join(by_group)} by a group of FAB only, which Airflow's API never looked at: not given",
            )
    used = {role for user in tables.users if user.active for role in user.roles}
    for name in sorted(set(tables.roles) - used):
        if any(ids for _, ids in rights_of(tables.roles[name]).selected):
            yield Note(
                "warning",
                f"role {name!r}",
                "nobody has it; its cells are in the policy, the Dags that they are for are in bindings only",
            )
