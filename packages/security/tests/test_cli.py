# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import cli_fixtures
import jsonschema
import pytest
from cli_fixtures import POLICY, Cli
from store_fixtures import make_tables, using_database

from tradewind.security._provider_info import get_provider_info
from tradewind.security.audit import tail
from tradewind.security.exceptions import CredentialError
from tradewind.security.policy.loader import parse
from tradewind.security.settings import SECTION, SecuritySettings
from tradewind.security.store import bindings, teams, tokens, users
from tradewind.security.store.directory import Directory

configured, policy_file = cli_fixtures.configured, cli_fixtures.policy_file

PASSWORD = "correct horse battery"  # noqa: S105


@pytest.fixture
def cli(configured, store, capsys):
    """The commands, on a database of its own."""
    return Cli(capsys)


@pytest.fixture
def cli_with_dags(configured, migrated_sqlite, tmp_path, capsys):
    """The commands, on a database that has Airflow's own tables too, with two Dags."""
    from airflow.models import DagModel
    from airflow.models.dag import DagTag
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.session import create_session

    path = tmp_path / "whole.db"
    shutil.copy(migrated_sqlite, path)
    with using_database(f"sqlite:///{path}"):
        make_tables()
        with create_session(scoped=False) as session:
            session.add(DagBundleModel(name="sales"))
            session.flush()
            session.add(DagModel(dag_id="orders", bundle_name="sales", tags=[DagTag(name="nightly", dag_id="orders")]))
            session.add(DagModel(dag_id="payroll", bundle_name="sales"))
        yield Cli(capsys)


def test_the_definitions_import_nothing_of_airflow_and_nothing_of_the_auth_manager():
    code = (
        "import sys, tradewind.security._provider_info, tradewind.security.cli.definition;"
        "heavy = ('airflow', 'pydantic', 'yaml', 'tradewind.security.auth_manager');"
        "print([one for one in heavy if one in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_what_providers_discovery_reads_is_valid_and_can_be_imported():
    from importlib import import_module

    import airflow

    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text(encoding="utf-8"))
    info = get_provider_info()
    jsonschema.validate(info, schema)
    for path in (*info["cli"], *info["auth-managers"]):
        module, _, name = path.rpartition(".")
        assert callable(getattr(import_module(module), name))


def test_the_documented_settings_are_those_that_are_read_with_their_defaults():
    options = get_provider_info()["config"][SECTION]["options"]
    assert set(options) == set(SecuritySettings.__dataclass_fields__)
    shipped = SecuritySettings()
    assert [key for key, option in options.items() if option.get("sensitive")] == ["admin_password"]
    assert float(options["reload_seconds"]["default"]) == shipped.reload_seconds
    assert float(options["poll_seconds"]["default"]) == shipped.poll_seconds
    assert int(options["audit_days"]["default"]) == shipped.audit_days
    assert tuple(options["audit"]["default"].split(",")) == shipped.audit
    assert options["create_admin"]["default"] == str(shipped.create_admin)
    assert options["security_headers"]["default"] == str(shipped.security_headers)


def test_every_command_has_a_handler():
    from airflow.cli.cli_config import ActionCommand

    from tradewind.security.cli.definition import get_cli_commands

    def handlers(command):
        if isinstance(command, ActionCommand):
            return [command.func]
        return [handler for one in command.subcommands for handler in handlers(one)]

    (group,) = get_cli_commands()
    found = handlers(group)
    assert len(found) >= 24
    for handler in found:
        # Airflow's lazy loader keeps the path in its closure.
        (path,) = (cell.cell_contents for cell in handler.__closure__ if isinstance(cell.cell_contents, str))
        module, _, name = path.rpartition(".")
        assert callable(getattr(__import__(module, fromlist=[name]), name)), path


def test_a_user_is_made_with_a_random_password_that_is_shown_once_and_works(cli):
    made = cli.json("users", "create", "alice", "--name", "Alice A", "--random")
    assert users.login("alice", made["password"]).name == "Alice A"
    listed = cli("users", "list", "--output", "json")
    assert made["password"] not in listed
    assert "scrypt" not in listed
    assert json.loads(listed)[0]["id"] == "alice"


def test_a_password_comes_from_the_environment_and_is_nowhere_in_the_output(cli, monkeypatch):
    monkeypatch.setenv("GIVEN", PASSWORD)
    out = cli("users", "create", "alice", "--password-env", "GIVEN", "--must-change")
    assert PASSWORD not in out + cli.error
    assert users.login("alice", PASSWORD).must_change_password


TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
)


def at_a_terminal(words: list[str], typed: list[str]) -> tuple[int, str]:
    """Exit code and what is shown, of a process whose terminal somebody types at."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "airflow", "tradewind-auth", *words]
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, *command], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    shown, asked = "", 0
    with contextlib.suppress(OSError):  # Linux's way to say that the other side is closed
        while data := os.read(ours, 4096):
            shown += data.decode(errors="replace")
            while asked < len(typed) and shown.count("Password") > asked:
                os.write(ours, f"{typed[asked]}\n".encode())
                asked += 1
    os.close(ours)
    return process.wait(60), shown


def test_a_password_is_asked_for_twice_and_must_be_the_same(cli):
    code, shown = at_a_terminal(["users", "create", "alice"], [PASSWORD, PASSWORD])
    assert (code, PASSWORD in shown) == (0, False), shown
    assert users.login("alice", PASSWORD)
    code, shown = at_a_terminal(["users", "set-password", "alice"], ["one thing here", "another thing"])
    assert code == 1
    assert "differ" in shown
    assert users.login("alice", PASSWORD)


def test_a_new_password_replaces_the_old_one(cli, monkeypatch):
    users.create("alice", password=PASSWORD)
    monkeypatch.setenv("GIVEN", "another horse battery")
    assert cli("users", "set-password", "alice", "--password-env", "GIVEN") == ""
    assert users.login("alice", "another horse battery")
    with pytest.raises(CredentialError):
        users.login("alice", PASSWORD)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["users", "create", "alice", "--password-env", "NOT_SET"], "NOT_SET is not set"),
        (["users", "create", "alice", "--random", "--password-env", "X"], "one of"),
        (["users", "create", "alice", "--service", "--random"], "exclude"),
        (["users", "create", " alice ", "--no-password"], "user id"),
        (["users", "disable", "nobody"], "nobody"),
        (["users", "set-password", "nobody", "--random"], "nobody"),
        (["teams", "delete", "nobody"], "nobody"),
        (["teams", "add-member", "nobody", "alice"], "nobody"),
        (["teams", "remove-member", "nobody", "alice"], "nobody"),
        (["bindings", "delete", "77"], "77"),
        (["bindings", "create", "--user", "a", "--role", "nope"], "nope"),
        (["bindings", "create", "--role", "ws_member"], "exactly one"),
        (["bindings", "create", "--user", "a", "--role", "dag_viewer"], "dags"),
        (["bindings", "create", "--user", "a", "--role", "team_member"], "team/"),
        (["bindings", "create", "--group", "x:y", "--role", "ws_member"], "corp"),
        (["bindings", "create", "--user", "a", "--role", "ws_member", "--scope", "deployment/prod"], "workspace"),
        (["tokens", "create", "--user", "a", "--name", "t", "--expires-in", "soon"], "--expires-in"),
        (["tokens", "create", "--user", "a", "--name", "t", "--scopes", "nope:GET"], "nope"),
        (["tokens", "create", "--user", "a", "--name", "t", "--scopes", ","], "scopes"),
        (["tokens", "revoke", "xyz"], "xyz"),
        (["tokens", "rotate", "0123456789abcdef"], "0123456789abcdef"),
        (["roles", "show", "nope"], "known"),
        (["matrix", "--role", "nope"], "known"),
        (["can", "--user", "a", "--cell", "nope"], "matrix"),
        (["can", "--user", "a", "--cell", "dag:GET", "--dag", "x", "--pool", "y"], "one of"),
        (["can", "--user", "a", "--cell", "view.jobs:GET", "--team", "x"], "not about"),
        (["audit", "--limit", "0"], "--limit"),
        (["import-fab"], "Flask-AppBuilder"),
        (["lint", "/nonexistent/policy.yaml"], "can't be read"),
        (["whoami", "--token-env", "NOT_SET"], "NOT_SET"),
    ],
)
def test_a_mistake_is_one_line_on_standard_error_and_exit_code_1(cli, words, reason):
    if "--user a --name" in " ".join(words):
        users.create("a")
    assert reason in cli.fails(*words)


def test_a_policy_that_cannot_be_read_is_said_with_its_line(cli, policy_file):
    policy_file.write_text(POLICY + "  - {user: x, role: nope, scope: workspace/data}\n", encoding="utf-8")
    assert f"{policy_file}:12" in cli.fails("roles", "list")


def test_a_disabled_user_is_switched_off_and_on(cli):
    users.create("alice", password=PASSWORD)
    cli("users", "disable", "alice")
    assert users.get("alice").disabled
    cli("users", "enable", "alice")
    assert not users.get("alice").disabled


def test_a_service_account_and_its_token_work_and_end(cli):
    cli("users", "create", "ci", "--service")
    words = (
        "tokens",
        "create",
        "--user",
        "ci",
        "--name",
        "deploy",
        "--scopes",
        "dag:GET,dag.run:*",
        "--expires-in",
        "2h",
    )
    made = cli.json(*words)
    directory = Directory()
    found = tokens.verify(made["token"], directory)
    assert found.scopes == {"dag:GET", "dag.run:*"}
    assert (found.expires_at - found.created_at).total_seconds() == 7200

    rotated = cli.json("tokens", "rotate", made["id"])
    assert rotated["rotated_from"] == made["id"]
    assert tokens.verify(rotated["token"], directory).name == "deploy"
    with pytest.raises(CredentialError):
        tokens.verify(made["token"], directory)

    cli("tokens", "revoke", rotated["id"])
    with pytest.raises(CredentialError):
        tokens.verify(rotated["token"], directory)
    directory.close()

    listed = cli("tokens", "list", "--user", "ci", "--output", "json")
    assert {one["id"] for one in json.loads(listed)} == {made["id"], rotated["id"]}
    for secret in (made["token"], rotated["token"]):
        assert secret.split("_", 2)[2][:20] not in listed


def test_teams_are_made_filled_emptied_and_deleted(cli):
    cli("teams", "create", "core")
    cli("teams", "add-member", "core", "alice")
    assert cli.json("teams", "list")[0]["members"] == ["alice"]
    cli("teams", "remove-member", "core", "alice")
    cli("teams", "delete", "core")
    assert teams.list_teams() == []
    assert cli("teams", "list") == ""
    assert "there is no team" in cli.error


def test_a_binding_is_made_where_its_role_belongs_and_deleted(cli):
    made = cli.json("bindings", "create", "--team", "core", "--role", "ws_author")
    assert made["scope"] == "workspace/data"
    limited = cli.json(
        *("bindings", "create", "--user", "bob", "--role", "dag_author", "--dag-id", "sales_*", "--dag-id", "hr"),
        *("--dag-tag", "nightly"),
    )
    assert limited["scope"] == "deployment/prod"
    assert limited["limits"] == {"dags": {"ids": ["sales_*", "hr"], "tags": ["nightly"]}}
    listed = cli.json("bindings", "list")
    assert [row["subject"] for row in listed] == ["group:corp:sre", "user:root@acme", "team:core", "user:bob"]
    cli("bindings", "delete", str(made["id"]))
    assert [one.id for one in bindings.list_bindings()] == [limited["id"]]


def test_every_change_is_in_the_audit_log_with_who_made_it_and_without_a_secret(cli, monkeypatch):
    monkeypatch.setenv("GIVEN", PASSWORD)
    cli("users", "create", "alice", "--password-env", "GIVEN")
    cli("users", "set-password", "alice", "--password-env", "GIVEN")
    cli("users", "disable", "alice")
    cli("users", "enable", "alice")
    cli("teams", "create", "core")
    cli("teams", "add-member", "core", "alice")
    cli("teams", "remove-member", "core", "alice")
    cli("teams", "delete", "core")
    binding = cli.json("bindings", "create", "--user", "alice", "--role", "ws_member")
    cli("bindings", "delete", str(binding["id"]))
    token = cli.json("tokens", "create", "--user", "alice", "--name", "t")
    rotated = cli.json("tokens", "rotate", token["id"])
    cli("tokens", "revoke", rotated["id"])

    events = tail(100)
    assert [event["event"] for event in reversed(events)] == [
        "user.created",
        "user.password_set",
        "user.disabled",
        "user.enabled",
        "team.created",
        "team.member_added",
        "team.member_removed",
        "team.deleted",
        "binding.created",
        "binding.deleted",
        "token.created",
        "token.rotated",
        "token.revoked",
    ]
    assert all(str(event["subjectId"]).startswith("cli") for event in events)
    assert all(event["organizationId"] == "acme" and event["deploymentId"] == "prod" for event in events)
    text = json.dumps(events)
    for secret in (PASSWORD, token["token"], rotated["token"]):
        assert secret not in text
        assert secret.split("_", 2)[-1][:20] not in text
    shown = cli.json("audit", "--event", "team.created")
    assert [event["details"] for event in shown] == [{"team": "core"}]


def test_what_fails_is_not_in_the_audit_log(cli):
    cli.fails("teams", "delete", "nobody")
    assert tail(10) == []


def test_the_result_is_alone_on_standard_output_though_the_audit_log_goes_there_too(cli):
    out = cli("users", "create", "alice", "--no-password", "--output", "json")
    assert json.loads(out)["id"] == "alice"
    assert "user.created" in cli.error


def test_can_answers_by_exit_code(cli):
    bindings.create({"user": "alice", "role": "ws_member", "scope": "workspace/data"}, created_by="test")
    assert cli("can", "--user", "alice", "--cell", "dag:GET") == "yes\n"
    assert cli("can", "--user", "alice", "--cell", "dag:PUT", code=1) == "no\n"
    assert cli("can", "--user", "bob", "--cell", "dag.run:PUT", "--group", "corp:sre") == "yes\n"


def test_can_knows_teams_by_issuer_and_by_database(cli):
    bindings.create({"team": "data-eng", "role": "ws_author", "scope": "workspace/data"}, created_by="test")
    words = ("can", "--user", "alice", "--cell", "dag.run:POST")
    cli(*words, code=1)
    assert cli(*words, "--group", "corp:data") == "yes\n"
    teams.create("data-eng")
    teams.add_member("data-eng", "alice")
    assert cli(*words) == "yes\n"


def test_a_disabled_user_can_nothing_and_is_told_so(cli):
    users.create("root@acme")
    assert cli("can", "--user", "root@acme", "--cell", "dag:GET") == "yes\n"
    users.disable("root@acme")
    assert cli("can", "--user", "root@acme", "--cell", "dag:GET", code=1) == "no\n"
    answer = cli.json("explain", "--user", "root@acme", "--cell", "dag:GET")
    assert not answer["allowed"]
    assert "disabled" in answer["because"][0]["detail"]


def test_an_explanation_knows_tags_and_bundles_of_a_dag(cli_with_dags):
    selector = {"tags": ["nightly"]}
    bindings.create(
        {"user": "alice", "role": "dag_author", "scope": "deployment/prod", "dags": selector}, created_by="test"
    )
    words = ("--user", "alice", "--cell", "dag.run:POST", "--dag")
    assert cli_with_dags("can", *words, "orders") == "yes\n"
    assert cli_with_dags("can", *words, "payroll", code=1) == "no\n"
    answer = cli_with_dags.json("explain", *words, "payroll")
    assert answer["because"][0]["effect"] == "limits"
    assert "nightly" in answer["because"][0]["detail"]
    table = cli_with_dags("explain", *words, "orders")
    assert table.startswith("alice may dag.run:POST on dag orders\n")


@pytest.mark.parametrize("kind", ["connection", "variable", "pool"])
def test_an_explanation_knows_resources_that_are_named(cli_with_dags, kind):
    values = {
        "user": "alice",
        "role": "deployment_operator",
        "scope": "deployment/prod",
        f"{kind}s": {"ids": ["mine_*"]},
    }
    bindings.create(values, created_by="test")
    words = ("can", "--user", "alice", "--cell", f"{kind}:PUT", f"--{kind}")
    assert cli_with_dags(*words, "mine_1") == "yes\n"
    assert cli_with_dags(*words, "other", code=1) == "no\n"


def test_whoami_shows_whom_a_token_is_of_and_refuses_another(cli, monkeypatch):
    users.create("ci", kind="service")
    bindings.create({"service": "ci", "role": "ci_deployer", "scope": "deployment/prod"}, created_by="test")
    _, token = tokens.create("ci", "t", ["dag:GET"], expires_in=3600)
    monkeypatch.setenv("AIRFLOW_CLI_TOKEN", token)
    shown = cli.json("whoami")
    assert (shown["id"], shown["kind"], shown["scopes"]) == ("ci", "service", ["dag:GET"])
    assert shown["roles"][0].startswith("ci_deployer")
    assert token not in json.dumps(shown)

    monkeypatch.setenv("OTHER", token[:-1] + ("0" if token[-1] != "0" else "1"))
    cli("whoami", "--token-env", "OTHER", code=1)
    assert "malformed" in cli.error
    assert token[30:60] not in cli.error


def test_the_matrix_is_the_same_in_every_form(cli):
    rows = list(csv.DictReader(io.StringIO(cli("matrix", "--output", "csv"))))
    in_json = cli.json("matrix")
    assert [row["cell"] for row in rows] == [row["cell"] for row in in_json]
    for row, other in zip(rows, in_json, strict=True):
        assert [role for role, mark in row.items() if mark == "x"] == other["roles"]
    assert "oncall" in rows[0]
    assert cli("matrix", "--role", "oncall", "--output", "csv").startswith("cell,oncall\n")
    assert "dag.run:PUT" in cli("matrix", "--role", "oncall")


def test_a_role_is_shown_with_its_cells_and_who_has_it(cli):
    assert {"role": "oncall", "description": "On call"}.items() <= next(
        row for row in cli.json("roles", "list") if row["role"] == "oncall"
    ).items()
    shown = cli.json("roles", "show", "oncall")
    assert "dag.run:PUT" in shown["cells"]
    assert shown["bound_to"][0].startswith("group:corp:sre at deployment/prod (")


def test_an_export_loads_again_and_says_the_same_as_file_and_database_together(cli):
    values = {"user": "bob", "role": "dag_author", "scope": "deployment/prod", "dags": {"ids": ["sales_*"]}}
    bindings.create(values, created_by="test")
    exported = parse(cli("export"))
    before = parse(POLICY)
    assert exported.file.roles == before.file.roles
    assert exported.file.issuers == before.file.issuers
    assert exported.file.organization == "acme"
    assert exported.file.bindings == (*before.file.bindings, bindings.parse(values))


def test_lint_exits_1_for_a_warning_and_0_for_information(cli, policy_file):
    assert [finding["severity"] for finding in cli.json("lint")] == ["info"]
    policy_file.write_text(POLICY.replace("{data: data-eng}", "{}"), encoding="utf-8")
    assert cli.json("lint") == []
    policy_file.write_text(POLICY + "plugins: {anonymous: [/]}\n", encoding="utf-8")
    findings = cli.json("lint", code=1)
    assert {"id": "plugins-anonymous", "severity": "warning"}.items() <= findings[0].items()


def test_lint_of_a_file_needs_no_database(configured, policy_file, capsys, tmp_path):
    policy_file.write_text(POLICY.replace("{data: data-eng}", "{}"), encoding="utf-8")
    with using_database(f"sqlite:///{tmp_path}/nothing.db"):
        cli = Cli(capsys)
        assert cli.json("lint", str(policy_file)) == []
        assert cli.json("lint") == []
        assert "only the file" in cli.error


def test_the_schema_is_printed(cli):
    assert json.loads(cli("schema"))["$id"] == "urn:tradewind:security:policy:1"


def test_without_tables_a_command_says_to_migrate(configured, capsys, tmp_path):
    with using_database(f"sqlite:///{tmp_path}/nothing.db"):
        assert "airflow db migrate" in Cli(capsys).fails("users", "list")


def test_a_control_character_of_a_stranger_cannot_reach_the_terminal(cli):
    from tradewind.security.audit import AuditLog

    log = AuditLog(["table:"])
    log.record("login", subject="x", subject_type="user", outcome="denied", reason="\x1b[2Jgone")
    log.close()
    out = cli("audit")
    assert "gone" in out
    assert "\x1b[2J" not in out
