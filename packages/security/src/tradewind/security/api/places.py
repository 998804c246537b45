# SPDX-License-Identifier: Apache-2.0
"""Where things are: paths and URLs below `[api] base_url`, and which of them a browser may be sent to."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_cookie_path
from airflow.configuration import conf

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["auth_path", "home_path", "is_https", "is_own_origin", "public_url", "safe_next"]

_LONGEST_NEXT = 2000


def home_path() -> str:
    """Give the path of Airflow's first page."""
    return get_cookie_path()


def auth_path(rest: str = "") -> str:
    """Give a path of this app as browsers see it.

    Args:
        rest: What follows `/auth`, for example `/login`.
    """
    return f"{get_cookie_path()}auth{rest}"


def public_url(request: Request, rest: str) -> str:
    """Give a URL of this app as identity providers have it registered.

    Args:
        request: Says where we are if `[api] base_url` does not.
        rest: What follows `/auth`.
    """
    base = conf.get("api", "base_url", fallback="") or str(request.base_url)
    return f"{base.rstrip('/')}/auth{rest}"


def is_https(request: Request) -> bool:
    """Tell whether cookies can be limited to HTTPS.

    Args:
        request: The request, whose scheme is right behind a proxy only with `--proxy-headers`.
    """
    base = conf.get("api", "base_url", fallback="") or ""
    return (
        request.base_url.scheme == "https"
        or bool(conf.get("api", "ssl_cert", fallback=""))
        or base.lower().startswith("https:")
    )


def safe_next(request: Request, wanted: str | None) -> str:
    """Give where a browser goes after a login: where it wanted to if that is here, else Airflow's first page.

    Args:
        request: Says where "here" is, besides `[api] base_url`.
        wanted: What came as `next`.
    """
    from airflow.api_fastapi.core_api.security import is_safe_url

    if not wanted or len(wanted) > _LONGEST_NEXT or not wanted.isprintable() or "\\" in wanted:
        return home_path()
    try:
        safe = is_safe_url(wanted, request=request)
    except ValueError:
        safe = False
    return wanted if safe else home_path()


def is_own_origin(request: Request) -> bool:
    """Tell whether a request is not one that another site lets a browser make.

    Args:
        request: The request. One without any of the headers that browsers add is of a program, which can't be
            tricked like that.
    """
    fetch_site = request.headers.get("sec-fetch-site")
    if fetch_site is not None:
        return fetch_site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    if origin is None:
        return True
    own = {_origin(str(request.base_url)), _origin(conf.get("api", "base_url", fallback="") or "")}
    return origin.lower() in own - {None}


def _origin(url: str) -> str | None:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower() if parts.scheme and parts.netloc else None
