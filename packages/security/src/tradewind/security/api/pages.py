# SPDX-License-Identifier: Apache-2.0
"""Pages for people: HTML without scripts or styles in it, and the headers that forbid others to add any."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from fastapi.responses import HTMLResponse

from tradewind.security.api.guard import manager_of
from tradewind.security.api.places import auth_path, home_path

if TYPE_CHECKING:
    from jinja2 import Environment
    from starlette.requests import Request

__all__ = ["STATIC", "login_link", "message", "page"]

STATIC = Path(__file__).with_name("static")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(request: Request, template: str, status: int = 200, **content: Any) -> HTMLResponse:
    """Give a page.

    Args:
        request: The request.
        template: Name of the template.
        status: HTTP status.
        content: What the template shows.
    """
    from airflow.configuration import conf

    html = (
        _environment()
        .get_template(template)
        .render(
            auth=auth_path(),
            home=home_path(),
            instance=conf.get("api", "instance_name", fallback="") or "Airflow",
            **content,
        )
    )
    return HTMLResponse(html, status, headers=_headers(request))


def message(request: Request, title: str, text: str, status: int, link: tuple[str, str]) -> HTMLResponse:
    """Give a page that says one thing.

    Args:
        request: The request.
        title: What it is about.
        text: What it says.
        status: HTTP status.
        link: Where to go from here: text and path.
    """
    return page(request, "message.html", status, title=title, text=text, link=link)


def login_link(wanted: str | None = None, *, local: bool = False) -> str:
    """Give the login page's path.

    Args:
        wanted: Where to go after it; checked again there.
        local: Show the form for passwords, also where there is one identity provider.
    """
    query = {**({"local": "1"} if local else {}), **({"next": wanted} if wanted else {})}
    return f"{auth_path('/login')}?{urlencode(query)}" if query else auth_path("/login")


def _headers(request: Request) -> dict[str, str]:
    providers = {_origin(issuer.issuer) for issuer in manager_of(request).authenticator.providers.logins}
    policy = (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self' data:",
        # The Runtime's footer asks this server what it shows.
        "connect-src 'self'",
        " ".join(("form-action 'self'", *sorted(providers))),
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Frame-Options": "DENY",
        # With no referrer at all browsers would post forms with `Origin: null`.
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
