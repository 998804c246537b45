# SPDX-License-Identifier: Apache-2.0
"""What tradewind-config adds to the start of an Airflow process.

Paired: each round starts one interpreter with the overlay and one with `TRADEWIND_CONFIG_DEFAULTS=off`, in
turns. Each imports Airflow's configuration, looks up every tuned setting in core and in the Task SDK, and
says how much CPU time it used. Inside one process, the cost of computing the settings is timed as well.

    hatch run bench:config_overlay [--rounds 10]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

LOOK_UPS = """
import json, time
from airflow.configuration import conf
from airflow.sdk.configuration import conf as sdk
from tradewind.config.profiles import KEYS
for section, key in KEYS:
    conf.get(section, key)
    sdk.get(section, key)
used = time.process_time()
from tradewind.config import overlay
compute = overlay._compute
times = []
for _ in range(20):
    begin = time.perf_counter()
    compute(conf)
    times.append(time.perf_counter() - begin)
begin = time.perf_counter()
for _ in range(1000):
    conf.get("core", "parallelism")
look_up = (time.perf_counter() - begin) / 1000
print(json.dumps({"cpu": used, "compute": min(times), "look_up": look_up}))
"""


def measure(home: str, switch: str) -> dict[str, float]:
    """Start one interpreter; returns CPU seconds until all look-ups were made, and the times measured inside."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "TRADEWIND_"))}
    done = subprocess.run(
        [sys.executable, "-c", LOOK_UPS],
        env={**kept, "AIRFLOW_HOME": home, "TRADEWIND_CONFIG_DEFAULTS": switch},
        capture_output=True,
        text=True,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="What tradewind-config adds to the start of an Airflow process.")
    parser.add_argument("--rounds", type=int, default=10, help="pairs of processes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        measure(home, "on")
        pairs = [(measure(home, "on"), measure(home, "off")) for _ in range(args.rounds)]
    on = statistics.median(pair[0]["cpu"] for pair in pairs)
    off = statistics.median(pair[1]["cpu"] for pair in pairs)
    result = {
        "rounds": args.rounds,
        "cpu_seconds_on": round(on, 3),
        "cpu_seconds_off": round(off, 3),
        "ratio": round(on / off, 4),
        "compute_once_ms": round(1000 * statistics.median(pair[0]["compute"] for pair in pairs), 3),
        "look_up_us_on": round(1e6 * statistics.median(pair[0]["look_up"] for pair in pairs), 2),
        "look_up_us_off": round(1e6 * statistics.median(pair[1]["look_up"] for pair in pairs), 2),
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
