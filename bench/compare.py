#!/usr/bin/env python3
"""Compares the answers of a benchmark's queries, as views, with DuckDB's: a second opinion on what the queries mean.

    python3 -m venv venv && venv/bin/pip install duckdb tpchgen-cli

TPC-H, over files:

    venv/bin/tpchgen-cli csv -s 0.01 --output-dir DATA
    venv/bin/python bench/compare.py tpch target/release/tidemill 0.01 DATA

The CH-benCHmark, whose rows and transactions both databases run as the same statements; what follows `ch TIDEMILL` goes to
`tidemill bench ch`:

    venv/bin/python bench/compare.py ch target/release/tidemill --warehouses 2 --transactions 500

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
NUMBERS = range(1, 23)


class Benchmark:
    """A folder of tables and queries."""

    def __init__(self, name: str):
        self.folder = HERE / name
        self.tables = (self.folder / "tables.sql").read_text()

    def query(self, number: int) -> str:
        lines = (self.folder / f"q{number:02}.sql").read_text().splitlines()
        return "\n".join(line for line in lines if not line.startswith("--"))

    def views(self) -> list[str]:
        return [f"CREATE MATERIALIZED VIEW q{n:02} AS {self.query(n)};" for n in NUMBERS]


class Tpch(Benchmark):
    """Over files."""

    def __init__(self, _binary: str, scale: str, data: str):
        super().__init__("tpch")
        self.scale, self.data = float(scale), data

    def query(self, number: int) -> str:
        text = super().query(number)
        return text.replace("0.0001", f"{0.0001 / self.scale:.10f}") if number == 11 else text

    def ours(self) -> str:
        """The tables as sources over the files."""
        statements = []
        for name, columns in re.findall(r"CREATE TABLE (\w+) \((.*?)\n\);", self.tables, re.S):
            columns = re.sub(r",\s*PRIMARY KEY \([^)]*\)", "", columns)
            columns = columns.replace(" PRIMARY KEY", "").replace(" NOT NULL", "")
            options = f"connector = 'file', path = '{self.data}/{name}.csv', format = 'csv', header = 'true'"
            statements.append(f"CREATE SOURCE {name} ({columns}) WITH ({options});")
        return "\n".join(statements + self.views())

    def fill(self, database: duckdb.DuckDBPyConnection) -> None:
        database.execute(self.tables)
        for name in re.findall(r"CREATE TABLE (\w+)", self.tables):
            database.execute(f"COPY {name} FROM '{self.data}/{name}.csv' (HEADER)")


class Ch(Benchmark):
    """Over tables that transactions change."""

    def __init__(self, binary: str, *arguments: str):
        super().__init__("ch")
        command = [binary, "bench", "ch", "--sql", *arguments]
        self.statements = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def ours(self) -> str:
        return "\n".join([self.tables, *self.views(), self.statements])

    def fill(self, database: duckdb.DuckDBPyConnection) -> None:
        database.execute(self.tables)
        for statement in self.statements.strip().removesuffix(";").split(";\n"):
            database.execute(statement)


def ours(binary: str, script: str) -> dict:
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        command = [binary, "run", "--format", "csv", file.name]
        for n in NUMBERS:
            command += ["-c", f"SELECT 'q{n:02}' AS marker; SELECT * FROM q{n:02}"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    parts = re.split(r"marker\nq(\d\d)\n", said)
    rows = {}
    for number, answer in zip(parts[1::2], parts[2::2]):
        # An empty line is a row of one NULL.
        lines = answer.splitlines()[1:]
        rows[int(number)] = [next(csv.reader(io.StringIO(line)), [""]) for line in lines]
    return rows


def theirs(benchmark: Benchmark) -> dict:
    database = duckdb.connect()
    benchmark.fill(database)
    return {n: database.execute(benchmark.query(n)).fetchall() for n in NUMBERS}


def plain(value) -> str:
    if value is None or value == "":
        return ""
    try:
        return format(float(decimal.Decimal(str(value))), ".6g")
    except decimal.InvalidOperation:
        return str(value).strip()


def main() -> int:
    binary = sys.argv[2]
    benchmark = {"tpch": Tpch, "ch": Ch}[sys.argv[1]](binary, *sys.argv[3:])
    mine, other = ours(binary, benchmark.ours()), theirs(benchmark)
    wrong = 0
    for n in NUMBERS:
        have, want = (sorted(tuple(map(plain, row)) for row in rows[n]) for rows in (mine, other))
        wrong += have != want
        print(f"q{n:02}: {len(want)} rows, {'the same' if have == want else 'DIFFERENT'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
