# SPDX-License-Identifier: Apache-2.0
"""Headless Chromium for tests marked `browser`."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

__all__ = ["chromium"]

_ARGUMENTS = [
    "--no-sandbox",  # tests also run as root in a container, where Chromium refuses its own sandbox
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Airflow's pages name hosts outside; a look-up that nobody answers would hold a page's load event.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running headless Chromium, closed at the end of the block.

    Keep the block inside one test module: Playwright's synchronous API leaves an event loop running in
    this thread for as long as it is open, which asyncio tests of other modules would trip over.

    Raises:
        FileNotFoundError: There is no `chromium` on PATH.
    """
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        raise FileNotFoundError("no chromium on PATH; install it with: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
