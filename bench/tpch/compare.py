#!/usr/bin/env python3
"""Compares the answers of the TPC-H queries, as views, with DuckDB's: a second opinion on what the queries mean.

    python3 -m venv venv && venv/bin/pip install duckdb tpchgen-cli
    venv/bin/tpchgen-cli csv -s 0.01 --output-dir DATA
    venv/bin/python bench/tpch/compare.py target/release/tidemill 0.01 DATA

Numbers are compared to six digits: DuckDB divides decimals as floats.
"""

import csv
import decimal
import io
import pathlib
import re
import subprocess
import sys
import tempfile

import duckdb

HERE = pathlib.Path(__file__).parent


def query(number: int, scale: float) -> str:
    lines = (HERE / f"q{number:02}.sql").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("--"))
    return text.replace("0.0001", f"{0.0001 / scale:.10f}") if number == 11 else text


def script(scale: float, data: str) -> str:
    """The tables as sources over the files, and a view for each query."""
    statements = []
    tables = (HERE / "tables.sql").read_text()
    for name, columns in re.findall(r"CREATE TABLE (\w+) \((.*?)\n\);", tables, re.S):
        columns = re.sub(r",\s*PRIMARY KEY \([^)]*\)", "", columns).replace(" PRIMARY KEY", "").replace(" NOT NULL", "")
        options = f"connector = 'file', path = '{data}/{name}.csv', format = 'csv', header = 'true'"
        statements.append(f"CREATE SOURCE {name} ({columns}) WITH ({options});")
    statements += [f"CREATE MATERIALIZED VIEW q{n:02} AS {query(n, scale)};" for n in range(1, 23)]
    return "\n".join(statements)


def ours(binary: str, scale: float, data: str) -> dict:
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script(scale, data))
        file.flush()
        command = [binary, "run", "--format", "csv", file.name]
        for n in range(1, 23):
            command += ["-c", f"SELECT 'q{n:02}' AS marker; SELECT * FROM q{n:02}"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    parts = re.split(r"marker\nq(\d\d)\n", said)
    rows = {}
    for number, answer in zip(parts[1::2], parts[2::2]):
        # An empty line is a row of one NULL.
        lines = answer.splitlines()[1:]
        rows[int(number)] = [next(csv.reader(io.StringIO(line)), [""]) for line in lines]
    return rows


def theirs(scale: float, data: str) -> dict:
    database = duckdb.connect()
    tables = (HERE / "tables.sql").read_text()
    database.execute(tables)
    for name in re.findall(r"CREATE TABLE (\w+)", tables):
        database.execute(f"COPY {name} FROM '{data}/{name}.csv' (HEADER)")
    return {n: database.execute(query(n, scale)).fetchall() for n in range(1, 23)}


def plain(value) -> str:
    if value is None or value == "":
        return ""
    try:
        return format(float(decimal.Decimal(str(value))), ".6g")
    except decimal.InvalidOperation:
        return str(value).strip()


def main() -> int:
    binary, scale, data = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    mine, other = ours(binary, scale, data), theirs(scale, data)
    wrong = 0
    for n in range(1, 23):
        have, want = (sorted(tuple(map(plain, row)) for row in rows[n]) for rows in (mine, other))
        wrong += have != want
        print(f"q{n:02}: {len(want)} rows, {'the same' if have == want else 'DIFFERENT'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
