# SPDX-License-Identifier: Apache-2.0
"""`airflow tradewind-auth`: Airflow loads these definitions at each command, the commands only when called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.cli.cli_config import ActionCommand, GroupCommand

__all__ = ["get_cli_commands"]


def get_cli_commands() -> list[GroupCommand]:
    """The commands that this distribution adds to `airflow`."""
    from airflow.cli.cli_config import GroupCommand

    return [
        GroupCommand(
            name="tradewind-auth",
            help="Look at who may do what, and manage roles, users, teams and tokens",
            subcommands=(*_questions(), *_files(), *_accounts(), *_grants()),
        )
    ]


def _arg(*flags: str, **options: Any) -> Any:
    from airflow.cli.cli_config import Arg

    # Airflow's Arg has no annotations.
    make: Callable[..., Any] = Arg
    return make(flags, **options)


def _output(*others: str) -> Any:
    return _arg("-o", "--output", help="Output format.", choices=("table", "json", *others), default="table")


def _command(name: str, where: str, text: str, *args: Any) -> ActionCommand:
    from airflow.cli.cli_config import ActionCommand, lazy_load_command

    return ActionCommand(name=name, help=text, func=lazy_load_command(f"tradewind.security.cli.{where}"), args=args)


def _group(name: str, text: str, *subcommands: ActionCommand) -> GroupCommand:
    from airflow.cli.cli_config import GroupCommand

    return GroupCommand(name=name, help=text, subcommands=subcommands)


def _repeated(flag: str, text: str, metavar: str) -> Any:
    return _arg(flag, help=f"{text} May be given several times.", metavar=metavar, action="append", default=[])


def _groups() -> Any:
    return _repeated("--group", "A group of an identity provider that the user is in.", "ISSUER:GROUP")


def _questions() -> tuple[Any, ...]:
    question = (
        _arg("--user", help="Id of a user or service account.", required=True),
        _arg("--cell", help="What, for example dag.run:POST; 'matrix' lists all.", required=True),
        _arg("--dag", help="Id of a Dag.", default=None),
        _arg("--connection", help="Id of a connection.", default=None),
        _arg("--variable", help="Key of a variable.", default=None),
        _arg("--pool", help="Name of a pool.", default=None),
        _arg("--team", help="Name of a team of Airflow's.", default=None),
        _groups(),
    )
    token = _arg(
        "--token-env",
        help="Environment variable that holds a token (default AIRFLOW_CLI_TOKEN).",
        metavar="NAME",
        default="AIRFLOW_CLI_TOKEN",
    )
    role = _arg("role", help="Name of a role.")
    return (
        _command("whoami", "questions.whoami", "Show whom a token is of, and which roles they have", token, _output()),
        _command(
            "explain", "questions.explain", "Tell whether somebody may do something, and why", *question, _output()
        ),
        _command("can", "questions.can", "The same with yes or no; exit 1 for no", *question),
        _command(
            "matrix",
            "questions.matrix",
            "Show the cells of each role",
            _repeated("--role", "Only this role.", "ROLE"),
            _output("csv"),
        ),
        _group(
            "roles",
            "Look at roles",
            _command("list", "questions.roles_list", "List the roles", _output()),
            _command("show", "questions.roles_show", "Show a role's cells and who has it", role, _output()),
        ),
    )


def _files() -> tuple[Any, ...]:
    file = _arg("file", help="A policy file; [tradewind_security] policy_file by default.", nargs="?", default=None)
    return (
        _command("lint", "files.lint", "Find mistakes in a policy; exit 1 for errors and warnings", file, _output()),
        _command("schema", "files.schema", "Print the JSON Schema of policy files"),
        _command("export", "files.export", "Print the policy with the database's bindings, as one policy file"),
        _command(
            "import-fab",
            "files.import_fab",
            "Make a policy file of Flask-AppBuilder's roles and users in this database",
            _arg("--output", help="File to write; standard output by default.", metavar="FILE", default=None),
            _arg(
                "--report",
                help="Format of the report of what was not carried over.",
                choices=("table", "json"),
                default="table",
            ),
            _arg("--user-id", help="What users will be known by.", choices=("username", "email"), default="username"),
        ),
    )


def _accounts() -> tuple[Any, ...]:
    user = _arg("user", help="Id of a user or service account.")
    team = _arg("team", help="Name of a team of users.")
    password = (
        _arg("--password-env", help="Environment variable that holds the password.", metavar="NAME", default=None),
        _arg("--random", help="Make a random password and print it, once.", action="store_true"),
        _arg("--must-change", help="Let the user choose another one at the first login.", action="store_true"),
    )
    return (
        _group(
            "users",
            "Manage local users and service accounts",
            _command(
                "create",
                "accounts.users_create",
                "Make a user; asks for a password unless told otherwise",
                user,
                _arg("--name", help="For display.", default=None),
                _arg("--service", help="A service account, which only API tokens use.", action="store_true"),
                _arg("--no-password", help="Without a password login.", action="store_true"),
                *password,
                _output(),
            ),
            _command("list", "accounts.users_list", "List users and service accounts", _output()),
            _command(
                "set-password",
                "accounts.users_set_password",
                "Give a user another password; asks for it unless told otherwise",
                user,
                *password,
                _output(),
            ),
            _command("disable", "accounts.users_disable", "Let a user do nothing any more; sessions end", user),
            _command("enable", "accounts.users_enable", "Let a user in again, and unlock the login", user),
        ),
        _group(
            "teams",
            "Manage teams of users",
            _command("list", "accounts.teams_list", "List teams with their members", _output()),
            _command("create", "accounts.teams_create", "Make a team", team),
            _command("delete", "accounts.teams_delete", "Delete a team and the database's bindings of it", team),
            _command("add-member", "accounts.teams_add_member", "Put a user into a team", team, user),
            _command("remove-member", "accounts.teams_remove_member", "Take a user out of a team", team, user),
        ),
    )


def _grants() -> tuple[Any, ...]:
    number = _arg("id", help="Id of a binding.", type=int)
    token = _arg("id", help="Id of a token: the part between twr_ and the next underscore.")
    subject = tuple(
        _arg(f"--{kind}", help=text, default=None)
        for kind, text in (
            ("user", "Id of a user."),
            ("group", "A group of an identity provider, ISSUER:GROUP."),
            ("team", "A team of users."),
            ("service", "Id of a service account."),
        )
    )
    limits = tuple(
        _repeated(f"--{kind}-{key}", f"Only {kind}s {text}", key.upper())
        for kind, keys in (
            ("dag", ("id", "tag", "bundle", "team")),
            ("connection", ("id", "team")),
            ("variable", ("id", "team")),
            ("pool", ("id", "team")),
        )
        for key in keys
        for text in ({"id": "with this id or pattern."}.get(key, f"of this {key}."),)
    )
    return (
        _group(
            "bindings",
            "Manage who has which role, beside the policy file",
            _command("list", "grants.bindings_list", "List all bindings, also those of the file", _output()),
            _command(
                "create",
                "grants.bindings_create",
                "Give a role to somebody",
                *subject,
                _arg("--role", help="Name of a role.", required=True),
                _arg(
                    "--scope",
                    help="Where, for example deployment/prod; the role's level here by default.",
                    default=None,
                ),
                *limits,
                _output(),
            ),
            _command("delete", "grants.bindings_delete", "Take a role away", number),
        ),
        _group(
            "tokens",
            "Manage API tokens",
            _command(
                "create",
                "grants.tokens_create",
                "Make a token and print it, once",
                _arg("--user", help="Id of the user or service account that it acts for.", required=True),
                _arg("--name", help="What it is for.", required=True),
                _arg(
                    "--scopes",
                    help="Cells it is limited to, with commas between them; all of the user's by default.",
                    default=None,
                ),
                _arg("--expires-in", help="Seconds, or for example 12h or 30d (default 30d).", default="30d"),
                _groups(),
                _output(),
            ),
            _command(
                "list",
                "grants.tokens_list",
                "List tokens, without their secrets",
                _arg("--user", help="Only those of this user.", default=None),
                _output(),
            ),
            _command(
                "rotate",
                "grants.tokens_rotate",
                "Replace a token by a new one and print it, once",
                token,
                _arg(
                    "--overlap", help="How long the old one is accepted too, for example 1h (default 0).", default="0"
                ),
                _output(),
            ),
            _command("revoke", "grants.tokens_revoke", "End a token", token),
        ),
        _command(
            "audit",
            "grants.audit",
            "Show the last events of the audit log's table",
            _arg("--limit", help="How many (default 50).", type=int, default=50),
            _arg("--event", help="Only this kind, for example access.", default=None),
            _arg("--subject", help="Only of this user or service.", default=None),
            _arg("--outcome", help="Only with this outcome: success, failure or denied.", default=None),
            _output(),
        ),
    )
