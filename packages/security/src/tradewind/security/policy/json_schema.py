# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of policy files, which editors use to complete and to check."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from tradewind.security.policy import schema
from tradewind.security.policy.cells import CELLS

__all__ = ["ID", "json_schema", "text"]

ID = "urn:tradewind:security:policy:1"
"""The schema's own id: the number is that of the format."""

_CELLS = ("allow", "cells")
_DURATIONS = ("idle", "absolute", "leeway")
_ARGUMENT = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def json_schema() -> dict[str, Any]:
    """Give the schema."""
    body = schema.PolicyFile.model_json_schema(mode="validation")
    _describe(body, schema.PolicyFile)
    for name, definition in body.get("$defs", {}).items():
        _describe(definition, getattr(schema, name))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        **body,
        "title": "Policy of tradewind.security",
    }


def text() -> str:
    """Give the schema as the published file has it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _describe(definition: dict[str, Any], model: type) -> None:
    """Move what a docstring says of each argument to the property that an editor shows it for."""
    definition["description"] = definition.get("description", "").partition("\n\n")[0]
    documented: dict[str, str] = {}
    for base in reversed(model.__mro__):
        documented.update(_arguments(base.__doc__ or ""))
    for name, shown in definition.get("properties", {}).items():
        shown.pop("title", None)
        if name in documented:
            shown["description"] = documented[name]
        if name in _DURATIONS:
            _duration(shown)
        if name in _CELLS:
            shown["items"] = {"anyOf": [{"enum": list(CELLS)}, {"type": "string", "pattern": "^[a-z_.*]+(:[A-Z*]+)?$"}]}
    if issubclass(model, schema.Subject):
        definition["oneOf"] = [{"required": [kind]} for kind in schema.Subject.model_fields]


def _duration(shown: dict[str, Any]) -> None:
    # Behind a validator pydantic leaves its own names of the limits, which JSON Schema does not know.
    limits = {"gt": "exclusiveMinimum", "ge": "minimum", "le": "maximum"}
    number = {known: shown.pop(own) for own, known in limits.items() if own in shown}
    shown["anyOf"] = [{"type": shown.pop("type"), **number}, {"type": "string", "pattern": "^\\s*[0-9]+[smhd]?\\s*$"}]


def _arguments(documentation: str) -> dict[str, str]:
    _, _, arguments = inspect.cleandoc(documentation).partition("Args:\n")
    return {name: " ".join(text.split()) for name, text in _ARGUMENT.findall(arguments)}
