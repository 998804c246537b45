# SPDX-License-Identifier: Apache-2.0
"""What the footer's middleware adds to an HTML answer, and to one that is not HTML.

Paired: in each round one request goes through the application with the middleware and one through the
same application without it, in turns, so that whatever else the machine does hits both alike. The
document has the size of Airflow's own shell. No network: requests are ASGI calls.

    python benchmarks/ui_footer.py [--rounds 5000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from tradewind.ui.middleware import FooterMiddleware
from tradewind.ui.runtime_info import DEFAULT_LINKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message

_WARM_UP_ROUNDS = 200
_SHELL = "<!doctype html><html><head><title>Airflow</title></head><body><div id=root>{}</div></body></html>"


async def _document(_: Request) -> HTMLResponse:
    return HTMLResponse(_SHELL.format("x" * 500))


async def _data(_: Request) -> JSONResponse:
    return JSONResponse({"dags": ["a"] * 50})


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _milliseconds(app: ASGIApp, path: str) -> float:
    async def send(_: Message) -> None:
        pass

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    start = time.perf_counter()
    await app(scope, _receive, send)
    return (time.perf_counter() - start) * 1000


async def measure(path: str, rounds: int) -> dict[str, float]:
    """Compare the application with and without the middleware.

    Args:
        path: `/document` for HTML, `/data` for JSON.
        rounds: Number of pairs of requests.

    Returns:
        Median and 99th percentile of each side, and of what the middleware adds within a pair, in
        milliseconds, and the ratio of the medians.
    """
    plain = Starlette(routes=[Route("/document", _document), Route("/data", _data)])
    touched = FooterMiddleware(
        plain, product="Tradewind Runtime", links=DEFAULT_LINKS, script="/tradewind/static/footer.js?v=0"
    )
    without: list[float] = []
    with_footer: list[float] = []
    for number in range(rounds + _WARM_UP_ROUNDS):
        sides: list[tuple[ASGIApp, list[float]]] = [(plain, without), (touched, with_footer)]
        for app, taken in sides if number % 2 else reversed(sides):
            taken.append(await _milliseconds(app, path))
    del without[:_WARM_UP_ROUNDS], with_footer[:_WARM_UP_ROUNDS]
    added = [b - a for a, b in zip(without, with_footer, strict=True)]
    return {
        "plain_p50_ms": statistics.median(without),
        "footer_p50_ms": statistics.median(with_footer),
        "added_p50_ms": statistics.median(added),
        "added_p99_ms": statistics.quantiles(added, n=100)[98],
        "ratio": statistics.median(with_footer) / statistics.median(without),
    }


def main() -> None:
    """Measure, and print one line a kind of answer and then everything as JSON."""
    parser = argparse.ArgumentParser(description="Cost of the footer's middleware")
    parser.add_argument("--rounds", type=int, default=5000, help="pairs of requests of each kind")
    rounds: int = parser.parse_args().rounds
    results: Mapping[str, Mapping[str, float]] = {
        kind: asyncio.run(measure(path, rounds)) for kind, path in (("html", "/document"), ("json", "/data"))
    }
    for kind, figures in results.items():
        sys.stdout.write(
            f"{kind}: p50 {figures['plain_p50_ms']:.4f} ms without, {figures['footer_p50_ms']:.4f} ms with; "
            f"adds {figures['added_p50_ms']:.4f} ms; ratio {figures['ratio']:.2f}\n"
        )
    sys.stdout.write(json.dumps({"rounds": rounds, "results": results}) + "\n")


if __name__ == "__main__":
    main()
