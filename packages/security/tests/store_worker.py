# SPDX-License-Identifier: Apache-2.0
"""A process that does what it is told on standard input, one line of JSON each, and answers so."""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from airflow import settings

from tradewind.security.exceptions import CredentialError
from tradewind.security.store import teams, tokens, users
from tradewind.security.store.directory import Directory

_directory = Directory()


def use(url: str) -> None:
    global _directory  # noqa: PLW0603
    _directory.close()
    settings.dispose_orm(do_log=False)
    settings.SQL_ALCHEMY_CONN = url
    settings.configure_orm()
    _directory = Directory()


def first_admin() -> str | None:
    return users.first_admin("acme")


def log_in_at_once(user_id: str, password: str, times: int) -> list[str]:
    together = Barrier(times)

    def log_in(_: int) -> str:
        together.wait()
        try:
            users.login(user_id, password)
        except CredentialError as error:
            return error.reason
        return "accepted"

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(log_in, range(times)))


def generation() -> int:
    return _directory.snapshot().generation


def seconds_until_team(user_id: str, team: str, limit: float) -> float | None:
    start = time.monotonic()
    while time.monotonic() - start < limit:
        if team in _directory.snapshot().teams.get(user_id, ()):
            return time.monotonic() - start
        time.sleep(0.02)
    return None


def verify(token: str) -> str:
    try:
        tokens.verify(token, _directory)
    except CredentialError as error:
        return error.reason
    return "accepted"


def seconds_until_refused(token: str, limit: float) -> list[Any] | None:
    start = time.monotonic()
    while time.monotonic() - start < limit:
        if (found := verify(token)) != "accepted":
            return [found, time.monotonic() - start]
        time.sleep(0.02)
    return None


def add_member(team: str, user_id: str) -> None:
    teams.add_member(team, user_id)


_CALLS = {
    call.__name__: call
    for call in (
        use,
        first_admin,
        log_in_at_once,
        generation,
        seconds_until_team,
        verify,
        seconds_until_refused,
        add_member,
    )
}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Airflow prints is no answer
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(_CALLS[asked["name"]](**asked["arguments"])), file=answers, flush=True)


if __name__ == "__main__":
    main()
