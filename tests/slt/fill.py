#!/usr/bin/env python3
"""Checks the expected rows of slt files against DuckDB, and writes them where they are missing.

Materialized views become plain views; the window functions become subqueries. Statements and
queries after a line `# by hand` are not DuckDB's: such statements are skipped, such queries left as
they are.
"""

import datetime
import decimal
import re
import sys

import duckdb

INTERVAL = r"(INTERVAL\s+'[^']+')"


def translate(sql: str) -> str:
    sql = re.sub(r"CREATE\s+MATERIALIZED\s+VIEW", "CREATE VIEW", sql, flags=re.I)
    sql = re.sub(r"DROP\s+MATERIALIZED\s+VIEW", "DROP VIEW", sql, flags=re.I)
    sql = re.sub(r",\s*WATERMARK\s+FOR\s+\w+\s+AS\s+[^)]*", "", sql, flags=re.I)
    sql = re.sub(
        r"TUMBLE\(\s*(\w+)\s*,\s*(\w+)\s*,\s*" + INTERVAL + r"\s*\)",
        r"(SELECT *, time_bucket(\3, \2) AS window_start, time_bucket(\3, \2) + \3 AS window_end FROM \1 WHERE \2 IS NOT NULL)",
        sql,
        flags=re.I,
    )
    sql = re.sub(
        r"HOP\(\s*(\w+)\s*,\s*(\w+)\s*,\s*" + INTERVAL + r"\s*,\s*" + INTERVAL + r"\s*\)",
        r"(SELECT *, window_start + \4 AS window_end FROM (SELECT *, unnest(generate_series("
        r"time_bucket(\3, \2) - \4 + \3, time_bucket(\3, \2), \3)) AS window_start FROM \1 WHERE \2 IS NOT NULL))",
        sql,
        flags=re.I,
    )
    sql = re.sub(r"\bpublic\.", "main.", sql)
    sql = re.sub(r"\bjsonb\b", "JSON", sql, flags=re.I)
    sql = re.sub(r"\bbytea\b", "BLOB", sql, flags=re.I)
    return sql


def trim(time: str) -> str:
    """PostgreSQL leaves zeros at the end of a fraction of a second out."""
    return time.rstrip("0") if "." in time else time


def text(value) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, float):
        if value != value:
            return "NaN"
        if value in (float("inf"), float("-inf")):
            return "Infinity" if value > 0 else "-Infinity"
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.timezone.utc)
            return trim(value.replace(tzinfo=None).isoformat(" ")) + "+00"
        return trim(value.isoformat(" "))
    if isinstance(value, datetime.time):
        return trim(value.isoformat())
    if isinstance(value, (list, tuple)):
        return "{" + ",".join(text(v) for v in value) + "}"
    value = str(value)
    return "(empty)" if value == "" else value


def rows(connection, sql: str, sort: bool) -> list[str]:
    found = [" ".join(text(v) for v in row) for row in connection.execute(translate(sql)).fetchall()]
    return sorted(found) if sort else found


def process(path: str) -> bool:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET default_null_order = 'nulls_last_on_asc_first_on_desc'")
    with open(path) as file:
        blocks = file.read().rstrip("\n").split("\n\n")
    good = True
    for number, block in enumerate(blocks):
        lines = block.split("\n")
        start = next((i for i, line in enumerate(lines) if line and not line.startswith(("#", "skipif", "onlyif"))), None)
        if start is None:
            continue
        by_hand = any(line.startswith("# by hand") for line in lines)
        head = lines[start].split()
        body = lines[start + 1 :]
        if head[0] == "statement":
            if by_hand:
                continue
            sql = "\n".join(body)
            try:
                connection.execute(translate(sql))
                if head[1] == "error":
                    print(f"{path}: DuckDB takes what must fail: {sql}")
            except duckdb.Error as error:
                if head[1] != "error":
                    good = False
                    print(f"{path}: {sql}\n    {error}")
        elif head[0] == "query":
            split = body.index("----") if "----" in body else len(body)
            if by_hand:
                continue
            sql = "\n".join(body[:split])
            try:
                found = rows(connection, sql, "rowsort" in head)
            except duckdb.Error as error:
                good = False
                print(f"{path}: {sql}\n    {error}")
                continue
            if split == len(body):
                blocks[number] = "\n".join(lines + ["----"] + found)
            else:
                given = body[split + 1 :]
                given = sorted(given) if "rowsort" in head else given
                if given != found:
                    good = False
                    print(f"{path}: {sql}\n    the file says {given}\n    DuckDB says   {found}")
    with open(path, "w") as file:
        file.write("\n\n".join(blocks) + "\n")
    return good


if __name__ == "__main__":
    results = [process(path) for path in sys.argv[1:]]
    sys.exit(0 if all(results) else 1)
