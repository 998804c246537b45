# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from tradewind.security.exceptions import PolicyError
from tradewind.security.policy.json_schema import json_schema, text
from tradewind.security.policy.loader import parse

PUBLISHED = Path(__file__).parents[1] / "docs" / "policy.schema.json"

POLICY = """
version: 1
organization: acme
issuers:
  - {name: corp, issuer: https://idp.example, client_id: x, leeway: 1m, teams: {data: data-eng}}
roles:
  oncall: {scope: deployment, extends: [deployment_viewer], allow: ["dag.run:PUT", "dag.*:GET", tw.audit.read]}
bindings:
  - {team: data-eng, role: ws_author, scope: workspace/default}
  - {group: "corp:sre", role: dag_author, scope: deployment/default, dags: {ids: ["sales_*"], tags: [x]}}
deny: [{user: bob, cells: ["connection:*"]}]
session: {idle: 1h, absolute: 43200}
plugins: {default: deny, anonymous: [/status]}
"""


def problems(text):
    validator = jsonschema.Draft202012Validator(json_schema())
    return [error.message for error in validator.iter_errors(yaml.safe_load(text))]


def test_the_published_schema_is_that_of_the_code():
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == json_schema(), (
        "run: airflow tradewind-auth schema > packages/security/docs/policy.schema.json"
    )
    assert PUBLISHED.read_text(encoding="utf-8").endswith("}\n")
    assert text().endswith("}\n")


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_a_policy_that_loads_is_valid_by_the_schema():
    parse(POLICY)
    assert problems(POLICY) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("version: 1", "version: 2"),
        ("team: data-eng, role", "team: data-eng, user: bob, role"),
        ("scope: workspace/default", "scope: everywhere"),
        ("idle: 1h", "idle: soon"),
        ("idle: 1h", "idle: 0"),
        ("organization: acme", "organisation: acme"),
        ("default: deny", "default: allow"),
        ('["connection:*"]', "[]"),
    ],
)
def test_what_the_loader_refuses_in_shape_the_schema_refuses(right, wrong):
    broken = POLICY.replace(right, wrong, 1)
    assert broken != POLICY
    with pytest.raises(PolicyError):
        parse(broken)
    assert problems(broken)


def test_every_key_of_a_policy_is_described_for_editors():
    whole = json_schema()
    definitions = [whole, *whole["$defs"].values()]
    assert len(definitions) >= 8
    undescribed = [
        (definition["title"], key)
        for definition in definitions
        for key, value in definition["properties"].items()
        if not value.get("description")
    ]
    assert undescribed == []
