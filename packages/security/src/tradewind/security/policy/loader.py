# SPDX-License-Identifier: Apache-2.0
"""Reads a policy file, checks what its entries say of each other, and follows its changes."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from tradewind.security.exceptions import PolicyError
from tradewind.security.policy.compiler import resolve_roles
from tradewind.security.policy.schema import Binding, PolicyFile, Role, Subject

if TYPE_CHECKING:
    import os
    from collections.abc import Hashable, Iterator, Mapping

__all__ = ["BUILT_IN", "Policy", "PolicyLoader", "check_binding", "parse", "shipped_roles"]

log = logging.getLogger(__name__)

MOST_BYTES = 8 * 1024 * 1024
MOST_NODES = 500_000
MOST_DEEP = 50
BUILT_IN = "version: 1\n"

_Path = tuple["str | int", ...]

_SCOPES_OF_ROLES = {
    "organization": ("organization",),
    "workspace": ("organization", "workspace"),
    "deployment": ("organization", "workspace", "deployment"),
    "dag": ("organization", "workspace", "deployment", "team"),
    "team": ("team",),
}


@dataclass(frozen=True)
class Policy:
    """A policy that was checked.

    Args:
        file: What the file says.
        roles: Definitions of all roles, the shipped ones included.
        masks: Cells of all roles.
        bindings: The file's bindings with their places.
        lines: Line of each entry, by its path of keys and indexes.
        source: The file's path, or None for the built-in policy.
    """

    file: PolicyFile
    roles: Mapping[str, Role]
    masks: Mapping[str, int]
    bindings: tuple[tuple[str, Binding], ...]
    lines: Mapping[_Path, int]
    source: str | None = None

    def place(self, *path: str | int) -> str:
        """Give the place of an entry as people read it, for example `policy.yaml:12`."""
        return f"{self.source or 'built-in policy'}:{self.lines.get(path, 1)}"


@cache
def shipped_roles() -> Mapping[str, Role]:
    """Give the roles that come with this package."""
    text = Path(__file__).with_name("roles.yaml").read_text(encoding="utf-8")
    return {name: Role.model_validate(role) for name, role in yaml.safe_load(text)["roles"].items()}


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice: the second would silently replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[object, int] = {}
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {name!r} is given twice (first in line {seen[name]})", key.start_mark
                )
            seen[name] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def parse(text: str, source: str | None = None) -> Policy:
    """Read a policy.

    Args:
        text: YAML.
        source: Where it is from, for messages.

    Returns:
        The checked policy.

    Raises:
        PolicyError: It can't be used; each problem is one line that names file, line, key and what would be right.
    """
    name = source or "policy"
    try:
        node = yaml.compose(text, Loader=_Loader)
        lines = dict(_lines(node))
        raw = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise PolicyError(f"{name}:{mark.line + 1 if mark else 1}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PolicyError(f"{name}:1: {error}") from None
    if not isinstance(raw, dict):
        raise PolicyError(f"{name}:1: expected keys and values, the first of them 'version: 1'")
    try:
        file = PolicyFile.model_validate(raw)
    except ValidationError as error:
        raise PolicyError("\n".join(_problem(name, lines, problem) for problem in error.errors())) from None
    return _checked(file, lines, source)


def _checked(file: PolicyFile, lines: Mapping[_Path, int], source: str | None) -> Policy:
    roles = {**shipped_roles(), **file.roles}
    problems = [
        f"{source or 'policy'}:{_line(lines, path)}: {_key(path)}: {message}"
        for path, message in (
            *_role_problems(file, roles),
            *_issuer_problems(file, roles),
            *_subject_problems(file, roles),
        )
    ]
    if problems:
        raise PolicyError("\n".join(problems))
    try:
        masks = resolve_roles(roles)
    except PolicyError as error:
        raise PolicyError(f"{source or 'policy'}:{_line(lines, ('roles',))}: {error}") from None
    policy = Policy(file, roles, masks, (), lines, source)
    placed = tuple((policy.place("bindings", index), binding) for index, binding in enumerate(file.bindings))
    return replace(policy, bindings=placed)


def _role_problems(file: PolicyFile, roles: Mapping[str, Role]) -> Iterator[tuple[_Path, str]]:
    for name, role in file.roles.items():
        if name in shipped_roles():
            yield ("roles", name), "a shipped role can't be replaced; give yours another name and 'extends' this one"
        for parent in role.extends:
            if parent not in roles:
                yield ("roles", name, "extends"), f"unknown role {parent!r}; known: {_known(roles)}"


def _issuer_problems(file: PolicyFile, roles: Mapping[str, Role]) -> Iterator[tuple[_Path, str]]:
    names: set[str] = set()
    audiences: set[tuple[str, str | None]] = set()
    for index, issuer in enumerate(file.issuers):
        if issuer.name in names:
            yield ("issuers", index, "name"), f"{issuer.name!r} is taken by another issuer"
        names.add(issuer.name)
        if issuer.audience and (issuer.issuer, issuer.audience) in audiences:
            yield (
                ("issuers", index, "audience"),
                f"another entry trusts {issuer.issuer!r} for {issuer.audience!r} already",
            )
        audiences.add((issuer.issuer, issuer.audience))
        for number, bind in enumerate(issuer.bind):
            if bind.role not in roles:
                yield ("issuers", index, "bind", number, "role"), f"unknown role {bind.role!r}; known: {_known(roles)}"


def _subject_problems(file: PolicyFile, roles: Mapping[str, Role]) -> Iterator[tuple[_Path, str]]:
    for index, binding in enumerate(file.bindings):
        for key, message in check_binding(binding, roles):
            yield ("bindings", index, key), message
    names = [issuer.name for issuer in file.issuers]
    for section in ("bindings", "deny"):
        entries: tuple[Subject, ...] = getattr(file, section)
        for index, entry in enumerate(entries):
            if entry.group is not None and entry.group.partition(":")[0] not in names:
                known = ", ".join(names) or "none is configured"
                issuer = entry.group.partition(":")[0]
                yield (section, index, "group"), f"{entry.group!r}: no issuer is named {issuer!r} (known: {known})"


def check_binding(binding: Binding, roles: Mapping[str, Role]) -> Iterator[tuple[str, str]]:
    """Give what is wrong with a binding, each as key and message.

    Args:
        binding: The binding.
        roles: All roles by name.
    """
    role = roles.get(binding.role)
    if role is None:
        yield "role", f"unknown role {binding.role!r}; known: {_known(roles)}"
        return
    kind = binding.scope.partition("/")[0]
    possible = _SCOPES_OF_ROLES[role.scope]
    if kind not in possible:
        yield "scope", f"{binding.scope!r}: a role of scope {role.scope!r} is bound at {' or '.join(possible)}"
    limited = [key for key in ("dags", "connections", "variables", "pools") if getattr(binding, key) is not None]
    if kind == "team" and limited:
        yield limited[0], f"scope {binding.scope!r} limits the binding already; give one of both"
    if role.scope == "dag" and kind != "team" and binding.dags is None:
        yield "dags", f"role {binding.role!r} is for chosen Dags: give ids, tags, bundles or teams (ids: ['*'] for all)"


def _known(roles: Mapping[str, Role]) -> str:
    return ", ".join(sorted(roles))


def _lines(node: yaml.Node | None, path: _Path = ()) -> Iterator[tuple[_Path, int]]:
    # Aliases are followed once for each use: a few lines could otherwise stand for billions.
    if node is None:
        return
    stack: list[tuple[yaml.Node, _Path]] = [(node, path)]
    count = 0
    while stack:
        current, at = stack.pop()
        count += 1
        if count > MOST_NODES or len(at) > MOST_DEEP:
            raise ValueError("the file is too large or too deep")
        yield at, current.start_mark.line + 1
        if isinstance(current, yaml.MappingNode):
            stack.extend((value, (*at, key.value)) for key, value in current.value if isinstance(key.value, str))
        elif isinstance(current, yaml.SequenceNode):
            stack.extend((value, (*at, index)) for index, value in enumerate(current.value))


def _line(lines: Mapping[_Path, int], path: _Path) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _key(path: _Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".") or "policy"


def _problem(name: str, lines: Mapping[_Path, int], problem: Mapping[str, Any]) -> str:
    path: _Path = tuple(part for part in problem["loc"] if part != "[key]")
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "is not known here"
    elif problem["type"] == "missing":
        message = "is missing"
    value = problem.get("input")
    shown = ""
    # What has a password in it must not be repeated in a log.
    if isinstance(value, (str, int, float, bool)) and repr(value) not in message and "@" not in str(value):
        shown = f" (found {value!r})"
    return f"{name}:{_line(lines, path)}: {_key(path)}: {message}{shown}"


class PolicyLoader:
    """Gives the policy of a file, and follows the file.

    Args:
        path: The file, or None for the built-in policy: no binding but the database's.
        reload_seconds: A change holds after at most this long.

    Raises:
        PolicyError: The first load fails: nobody is let in by a policy that can't be read.

    A file that becomes unusable leaves the last good policy in place; `problem` and the log say so.
    """

    def __init__(self, path: str | os.PathLike[str] | None, reload_seconds: float = 5.0) -> None:
        self.path = None if path is None else Path(path)
        self.reload_seconds = reload_seconds
        self.problem: str | None = None
        self._lock = threading.Lock()
        self._stamp: object = self._look()
        self._policy = self._read()
        self._checked = time.monotonic()
        self._thread: threading.Thread | None = None

    def current(self) -> Policy:
        """Give the policy that holds now; the same object until it changes."""
        if self.path is None:
            return self._policy
        age = time.monotonic() - self._checked
        if age > self.reload_seconds:
            self.refresh()
        elif age > self.reload_seconds / 2 and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self.refresh, name="tradewind-policy", daemon=True)
            self._thread.start()
        return self._policy

    def refresh(self) -> bool:
        """Look at the file now.

        Returns:
            Whether the policy changed.
        """
        with self._lock:
            self._checked = time.monotonic()
            stamp = self._look()
            if stamp == self._stamp:
                return False
            try:
                policy = self._read()
            except PolicyError as error:
                if str(error) != self.problem:
                    self.problem = str(error)
                    log.error("The policy stays as it was, its file can't be used: %s", error)  # noqa: TRY400 - a trace says nothing
                # A file that can't be read at this moment is tried again; a malformed one waits for its next change.
                self._stamp = stamp if isinstance(stamp, tuple) else None
                return False
            self._stamp = stamp
            self._policy = policy
            self.problem = None
            log.info("The policy was loaded anew from %s", self.path)
            return True

    def _look(self) -> object:
        if self.path is None:
            return None
        try:
            found = self.path.stat()
        except OSError as error:
            return str(error)
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def _read(self) -> Policy:
        if self.path is None:
            return parse(BUILT_IN)
        try:
            with self.path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise PolicyError(
                f"[tradewind_security] policy_file = {str(self.path)!r}: can't be read ({error.strerror})"
            ) from None
        if len(data) > MOST_BYTES:
            raise PolicyError(f"{self.path}:1: larger than {MOST_BYTES} bytes")
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise PolicyError(f"{self.path}:{line}: not UTF-8") from None
        return parse(text, str(self.path))
