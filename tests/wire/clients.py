#!/usr/bin/env python3
"""Real clients against a real server: psycopg and psql.

Starts the binary named by $TIDEMILL on ports of its own.
"""

import datetime
import decimal
import os
import re
import subprocess
import sys
import threading
import time
import uuid

import psycopg

TIDEMILL = os.environ.get("TIDEMILL", "target/debug/tidemill")


class Server:
    """A server; it ends with the block."""

    def __enter__(self):
        self.process = subprocess.Popen(
            [TIDEMILL, "serve", "--in-memory", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", "--workers", "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = []
        self.port = None
        threading.Thread(target=self.listen, daemon=True).start()
        until = time.monotonic() + 30
        while self.port is None:
            if time.monotonic() > until or self.process.poll() is not None:
                self.process.kill()
                raise RuntimeError("the server did not start:\n" + "".join(self.said))
            time.sleep(0.01)
        return self

    def listen(self):
        for line in self.process.stdout:
            self.said.append(line)
            plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
            found = re.search(r"psql -h 127\.0\.0\.1 -p (\d+)", plain)
            if found:
                self.port = int(found.group(1))

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def connect(self, **options):
        return psycopg.connect(host="127.0.0.1", port=self.port, user="test", dbname="tidemill", **options)

    def psql(self, command, **options):
        arguments = ["psql", "-X", "-h", "127.0.0.1", "-p", str(self.port), "-U", "test", "-d", "tidemill"]
        return subprocess.run(arguments + ["-At", "-c", command], capture_output=True, text=True, timeout=60, **options)


def values(server):
    """Every type goes in as a parameter and comes out as it was, as text and in binary."""
    row = (
        1,
        True,
        2**62,
        1.5,
        decimal.Decimal("12.3400"),
        "ä 'b'",
        b"\x00\xff",
        datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 12, 30, 0, 125),
        datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc),
        uuid.UUID("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"),
    )
    columns = "id, b, l, f, n, t, x, d, ts, tz, u"
    with server.connect(autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE kinds (id int PRIMARY KEY, b bool, l bigint, f double precision, n numeric(12, 4), t text,"
            " x bytea, d date, ts timestamp, tz timestamptz, u uuid)"
        )
        connection.execute(f"INSERT INTO kinds ({columns}) VALUES ({', '.join(['%s'] * len(row))})", row)
        connection.execute(f"INSERT INTO kinds ({columns}) VALUES (2{', NULL' * 10})")
        for binary in (False, True):
            found = connection.cursor(binary=binary).execute(f"SELECT {columns} FROM kinds ORDER BY id").fetchall()
            assert found == [row, (2,) + (None,) * 10], (binary, found)
        found = connection.execute("SELECT t FROM kinds WHERE id = %s AND l > %s", (1, 5)).fetchone()
        assert found == ("ä 'b'",), found


def views(server):
    """A view follows its table; COPY brings many rows; a cursor follows a view."""
    with server.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE sales (id int, item text, amount int)")
        connection.execute("CREATE MATERIALIZED VIEW totals AS SELECT item, sum(amount) AS total FROM sales GROUP BY item")
        with connection.cursor().copy("COPY sales FROM STDIN") as copy:
            for number in range(1000):
                copy.write_row((number, "even" if number % 2 == 0 else "odd", 1))
        found = sorted(connection.execute("SELECT item, total FROM totals").fetchall())
        assert found == [("even", 500), ("odd", 500)], found
        with connection.cursor().copy("COPY (SELECT item, total FROM totals ORDER BY item) TO STDOUT") as copy:
            assert b"".join(copy) == b"even\t500\nodd\t500\n"

    with server.connect() as reader, server.connect(autocommit=True) as writer:
        reader.execute("DECLARE c CURSOR FOR SUBSCRIBE TO totals")
        first = reader.execute("FETCH 100 FROM c WITH (timeout = '5s')").fetchall()
        assert sorted(row[1:] for row in first) == [(1, "even", 500), (1, "odd", 500)], first
        writer.execute("INSERT INTO sales VALUES (1, 'odd', 7)")
        changes = []
        until = time.monotonic() + 10
        while len(changes) < 2 and time.monotonic() < until:
            changes += reader.execute("FETCH 100 FROM c WITH (timeout = '1s')").fetchall()
        assert sorted(row[1:] for row in changes) == [(-1, "odd", 500), (1, "odd", 507)], changes
        assert len({row[0] for row in changes}) == 1, "both belong to one epoch"


def errors(server):
    """Errors have PostgreSQL's codes and positions, and the connection goes on."""
    with server.connect(autocommit=True) as connection:
        for sql, state in [
            ("SELEC 1", "42601"),
            ("SELECT * FROM nowhere", "42P01"),
            ("SELECT nothing FROM sales", "42703"),
            ("CREATE TABLE sales (a int)", "42P07"),
            ("SELECT 1 / 0", "22012"),
        ]:
            try:
                connection.execute(sql).fetchall()
            except psycopg.Error as error:
                assert error.sqlstate == state, (sql, error.sqlstate, str(error))
            else:
                raise AssertionError(f"{sql} must fail")
        assert connection.execute("SELECT 1").fetchone() == (1,)


def shell(server):
    """psql's own commands and its reading of COPY."""
    assert "sales" in server.psql("\\dt").stdout
    assert "totals" in server.psql("\\dm").stdout
    described = server.psql("\\d sales")
    assert "item" in described.stdout and "text" in described.stdout, described
    copied = server.psql("\\copy sales FROM STDIN WITH (FORMAT csv)", input="2000,third,3\n2001,third,4\n")
    assert copied.returncode == 0, copied
    assert server.psql("SELECT total FROM totals WHERE item = 'third'").stdout == "7\n"
    failed = server.psql("SELECT nothing FROM sales")
    assert failed.returncode != 0 and "nothing" in failed.stderr and "LINE 1" in failed.stderr, failed
    # psql gathers what it writes into a pipe; stdbuf makes it give each line.
    stream = subprocess.Popen(
        ["stdbuf", "-oL", "psql", "-X", "-h", "127.0.0.1", "-p", str(server.port), "-U", "test", "-d", "tidemill",
         "-c", "COPY (SUBSCRIBE TO totals) TO STDOUT"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        seen = [stream.stdout.readline().rstrip("\n").split("\t")[1:] for _ in range(3)]
        assert sorted(seen) == [["1", "even", "500"], ["1", "odd", "507"], ["1", "third", "7"]], seen
    finally:
        stream.kill()
        stream.wait()


if __name__ == "__main__":
    failed = 0
    with Server() as server:
        for test in (values, views, errors, shell):
            try:
                test(server)
                print(f"{test.__name__}: ok")
            except Exception as error:
                failed += 1
                print(f"{test.__name__}: FAILED: {type(error).__name__}: {error}")
    sys.exit(1 if failed else 0)
