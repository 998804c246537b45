# SPDX-License-Identifier: Apache-2.0
"""Which runtime this process is: facts about the image, overridden by environment variables.

The image writes `/etc/tradewind/runtime.json`; a deployment adds what only it knows:

| variable | form |
|---|---|
| `TRADEWIND_IMAGE_TAG` | text, up to 200 printable characters |
| `TRADEWIND_RUNTIME_VERSION` | the same |
| `TRADEWIND_ENVIRONMENT_NAME` | the same |
| `TRADEWIND_ENVIRONMENT_COLOR` | `#rgb`, `#rrggbb` or a colour name in letters |
| `TRADEWIND_LINKS` | a JSON list of `{"label": ..., "url": ...}`, http and https only |

A malformed value never stops Airflow: its default is used and one warning names it.
"""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from tradewind.ui._version import __version__
from tradewind.ui.exceptions import RuntimeInfoError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "DEFAULT_LINKS",
    "RUNTIME_FILE",
    "Link",
    "RuntimeInfo",
    "load",
    "parse_color",
    "parse_links",
    "parse_text",
    "read",
]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

RUNTIME_FILE = Path("/etc/tradewind/runtime.json")
"""Written by the image's build; absent where this package was installed into another Airflow."""

_TEXT_CHARACTERS = 200
_LABEL_CHARACTERS = 60
_LINKS = 10
_SHOWN_CHARACTERS = 120

_COLOR = re.compile(r"#[0-9a-fA-F]{3}(?:[0-9a-fA-F]{3})?|[a-zA-Z]{3,30}")
_USER_INFO = re.compile(r"//[^/@\s]*@")
_URL = re.compile(r"https?://[!-~]+", re.IGNORECASE)


@dataclass(frozen=True)
class Link:
    """A link in the footer.

    Args:
        label: What is shown, up to 60 characters.
        url: An absolute http or https URL.
    """

    label: str
    url: str


DEFAULT_LINKS = (Link("Airflow documentation", "https://airflow.apache.org/docs/"),)
"""Public knowledge only: the footer shows links before login."""


@dataclass(frozen=True)
class RuntimeInfo:
    """What is known about the runtime that this process belongs to.

    Args:
        ui: The version of this package.
        version: The runtime's version, or None outside the image.
        airflow: The version of Airflow that is installed here. Where the image's file says something
            else, somebody has replaced Airflow on top of the image, so the installed one is told.
        python: The image's Python version.
        debian: The image's Debian version.
        variant: The image's variant, for example `slim`.
        components: Versions of the Tradewind distributions in the image, by name.
        built: When the image was built, as its build wrote it (ISO 8601).
        image_tag: The tag under which the deployment runs the image.
        environment_name: What people call this deployment, for example `production`.
        environment_color: A CSS colour for it.
        links: What the footer links to.
    """

    ui: str = __version__
    version: str | None = None
    airflow: str | None = None
    python: str | None = None
    debian: str | None = None
    variant: str | None = None
    components: Mapping[str, str] = field(default_factory=dict)
    built: str | None = None
    image_tag: str | None = None
    environment_name: str | None = None
    environment_color: str | None = None
    links: tuple[Link, ...] = DEFAULT_LINKS

    @property
    def product(self) -> str:
        """The product's name: the runtime's in the image, else this package's."""
        return "Tradewind Runtime" if self.version else "Tradewind UI"

    def as_dict(self) -> dict[str, object]:
        """Everything as JSON-ready data, the product's name included."""
        return {"product": self.product, **asdict(self)}


def _shown(value: object) -> str:
    """A value as a message may print it: short, and without the password of a URL."""
    text = _USER_INFO.sub("//***@", value if isinstance(value, str) else repr(value))
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")


def parse_text(name: str, value: str, *, characters: int = _TEXT_CHARACTERS) -> str:
    """Give the value without surrounding blanks.

    Args:
        name: What to call it in the message.
        value: What somebody typed.
        characters: The largest length.

    Raises:
        RuntimeInfoError: It is empty, longer, or has a character that cannot be printed.

    >>> parse_text("TRADEWIND_IMAGE_TAG", " 1.4.0-slim ")
    '1.4.0-slim'
    """
    text = value.strip()
    if not text or len(text) > characters or not text.isprintable():
        raise RuntimeInfoError(f"{name} is {_shown(value)}, expected 1 to {characters} printable characters")
    return text


def parse_color(name: str, value: str) -> str:
    """Give a colour that is safe to put into a style sheet.

    Args:
        name: What to call it in the message.
        value: `#rgb`, `#rrggbb`, or a colour name in letters; whether CSS knows the name is not checked.

    Raises:
        RuntimeInfoError: It has another form.

    >>> parse_color("TRADEWIND_ENVIRONMENT_COLOR", "#C00")
    '#C00'
    """
    if not _COLOR.fullmatch(value.strip()):
        raise RuntimeInfoError(
            f"{name} is {_shown(value)}, expected #rgb, #rrggbb or the name of a CSS colour in letters"
        )
    return value.strip()


def parse_links(name: str, value: str) -> tuple[Link, ...]:
    """Give the links of a JSON list; an empty list means no links.

    Args:
        name: What to call it in the message.
        value: JSON such as `[{"label": "Runbook", "url": "https://wiki.example.org/airflow"}]`.

    Raises:
        RuntimeInfoError: It is not such a list, has more than 10 links, a label of more than 60
            characters, or a URL that is not http or https or that carries a user name or password.

    >>> parse_links("TRADEWIND_LINKS", '[{"label": "Runbook", "url": "https://wiki.example.org/"}]')
    (Link(label='Runbook', url='https://wiki.example.org/'),)
    """
    form = '[{"label": "Runbook", "url": "https://wiki.example.org/"}, ...]'
    try:
        items = json.loads(value)
    except (ValueError, RecursionError):
        raise RuntimeInfoError(f"{name} is {_shown(value)}, which is not JSON; expected {form}") from None
    if not isinstance(items, list) or len(items) > _LINKS:
        raise RuntimeInfoError(f"{name} is {_shown(value)}, expected a JSON list of at most {_LINKS}: {form}")
    return tuple(_parse_link(f"{name}, item {number}", item) for number, item in enumerate(items, start=1))


def _parse_link(name: str, item: object) -> Link:
    if not isinstance(item, dict) or item.keys() != {"label", "url"}:
        raise RuntimeInfoError(f'{name} is {_shown(item)}, expected an object with "label" and "url"')
    label, url = item["label"], item["url"]
    if not isinstance(label, str) or not isinstance(url, str):
        raise RuntimeInfoError(f"{name} is {_shown(item)}, expected text for label and url")
    if not _is_web_url(url):
        raise RuntimeInfoError(
            f"{name} has the url {_shown(url)}, expected http:// or https:// and no user name or password"
        )
    return Link(parse_text(f"{name}, label", label, characters=_LABEL_CHARACTERS), url)


def _is_web_url(url: str) -> bool:
    # The whole text is checked first: urlsplit drops tabs and newlines, browsers read "\" as "/".
    if not _URL.fullmatch(url) or "\\" in url:
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return bool(parts.hostname) and "@" not in parts.netloc


def _facts(document: str | None, problems: list[str]) -> dict[str, object]:
    if document is None:
        return {}
    try:
        facts = json.loads(document)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        problems.append(f"{RUNTIME_FILE} holds {_shown(document)}, expected a JSON object")
        return {}
    return facts


class _Reader:
    """Reads single values, and collects a message for each that is malformed."""

    def __init__(self, environ: Mapping[str, str], facts: Mapping[str, object], problems: list[str]) -> None:
        self._environ = environ
        self._facts = facts
        self._problems = problems

    def fact(self, key: str) -> str | None:
        value = self._facts.get(key)
        if value is None:
            return None
        try:
            if not isinstance(value, str):
                raise RuntimeInfoError(f"{key} in {RUNTIME_FILE} is {_shown(value)}, expected text")
            return parse_text(f"{key} in {RUNTIME_FILE}", value)
        except RuntimeInfoError as error:
            self._problems.append(f"{error}; it is left out")
            return None

    def components(self) -> dict[str, str]:
        value = self._facts.get("components")
        if value is None:
            return {}
        if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
            return value
        self._problems.append(
            f"components in {RUNTIME_FILE} is {_shown(value)}, expected names with versions; it is left out"
        )
        return {}

    def variable(self, name: str, parse: Callable[[str, str], _T], default: _T) -> _T:
        value = self._environ.get(name, "")
        if not value.strip():  # `VAR=` is how people unset a variable in a compose file
            return default
        try:
            return parse(name, value)
        except RuntimeInfoError as error:
            self._problems.append(f"{error}; the default is used")
            return default


def read(
    environ: Mapping[str, str], document: str | None = None, *, airflow: str | None = None
) -> tuple[RuntimeInfo, list[str]]:
    """Put the facts together; pure, so it can be asked about any environment.

    Args:
        environ: Environment variables.
        document: The text of the image's `runtime.json`, or None outside the image.
        airflow: The installed Airflow's version; default the one that the document names.

    Returns:
        The facts, and one message for each value that could not be used.

    >>> info, problems = read({"TRADEWIND_IMAGE_TAG": "1.4.0-slim"}, '{"version": "1.4.0"}')
    >>> info.product, info.version, info.image_tag, problems
    ('Tradewind Runtime', '1.4.0', '1.4.0-slim', [])
    """
    problems: list[str] = []
    reader = _Reader(environ, _facts(document, problems), problems)
    none: str | None = None
    info = RuntimeInfo(
        version=reader.variable("TRADEWIND_RUNTIME_VERSION", parse_text, reader.fact("version")),
        airflow=airflow or reader.fact("airflow"),
        python=reader.fact("python"),
        debian=reader.fact("debian"),
        variant=reader.fact("variant"),
        components=reader.components(),
        built=reader.fact("built"),
        image_tag=reader.variable("TRADEWIND_IMAGE_TAG", parse_text, none),
        environment_name=reader.variable("TRADEWIND_ENVIRONMENT_NAME", parse_text, none),
        environment_color=reader.variable("TRADEWIND_ENVIRONMENT_COLOR", parse_color, none),
        links=reader.variable("TRADEWIND_LINKS", parse_links, DEFAULT_LINKS),
    )
    return info, problems


@cache
def load() -> RuntimeInfo:
    """Read this process's environment and the image's file, once.

    Each malformed value is logged as one warning, by the first call.
    """
    info, problems = read(os.environ, _document(RUNTIME_FILE), airflow=_installed_airflow())
    for problem in problems:
        log.warning("%s", problem)
    return info


def _document(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        log.warning("%s cannot be read (%s); facts about the image are left out", path, error)
        return None


def _installed_airflow() -> str | None:
    # From the metadata, not from `airflow.__version__`: importing Airflow takes seconds.
    try:
        return version("apache-airflow-core")
    except PackageNotFoundError:
        return None
