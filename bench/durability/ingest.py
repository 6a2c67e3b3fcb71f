#!/usr/bin/env python3
"""Nexmark's events over HTTP as Arrow into a server that keeps them, and one that does not: rows a second with view q5 (bids) or q8 (people and
auctions).

usage: ingest.py TIDEMILL [--query q5] [--rows 4000000] [--batch 20000] [--clients 4] [--every 2s]
Needs numpy and pyarrow. Prints a line per run: seconds until the last row is in the view, rows a second, the epochs' latency.
"""
import argparse, concurrent.futures, io, json, re, shutil, subprocess, tempfile, time, urllib.request

import numpy as np
import pyarrow as pa

Q5 = """WITH counts AS (
  SELECT auction, window_start AS starttime, window_end AS endtime, count(*) AS num
  FROM HOP(bid, date_time, INTERVAL '2' SECOND, INTERVAL '10' SECOND) GROUP BY auction, window_start, window_end
), most AS (SELECT starttime, endtime, max(num) AS maxn FROM counts GROUP BY starttime, endtime)
SELECT c.auction, c.num FROM counts AS c
JOIN most AS m ON c.starttime = m.starttime AND c.endtime = m.endtime AND c.num >= m.maxn"""


Q8 = """WITH joined AS (
  SELECT id, name, window_start AS starttime, window_end AS endtime
  FROM TUMBLE(person, date_time, INTERVAL '10' SECOND) GROUP BY id, name, window_start, window_end
), sold AS (
  SELECT seller, window_start AS starttime, window_end AS endtime
  FROM TUMBLE(auction, date_time, INTERVAL '10' SECOND) GROUP BY seller, window_start, window_end
)
SELECT j.id, j.name, j.starttime FROM joined AS j
JOIN sold AS s ON s.seller = j.id AND s.starttime = j.starttime AND s.endtime = j.endtime"""
TABLES = {
    "q5": {"bid": "auction bigint, bidder bigint, price bigint"},
    "q8": {"person": "id bigint, name text", "auction": "id bigint, seller bigint"},
}


def body(columns, times):
    table = pa.table({**columns, "date_time": pa.array(times, pa.timestamp("us"))})
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def people_and_auctions(rows, batch):
    """One person for three auctions, of which each is by one of the last 500 people."""
    random = np.random.default_rng(1)
    for first in range(0, rows // 4, batch // 4):
        number = np.arange(first, first + batch // 4)
        names = pa.array(np.char.add("person ", (number % 9973).astype(str)))
        # Four events in 200 microseconds, as one event in twelve and a half is one of these.
        times = number * 200 + 1_700_000_000_000_000
        yield "person", body({"id": pa.array(number), "name": names}, times)
        number3 = np.repeat(number, 3)
        sellers = np.maximum(number3 - random.integers(0, 500, len(number3)), 0)
        yield "auction", body({"id": pa.array(np.arange(len(number3)) + first * 3), "seller": pa.array(sellers)}, np.repeat(times, 3))


def bids(rows, batch):
    random = np.random.default_rng(1)
    for first in range(0, rows, batch):
        number = np.arange(first, first + batch)
        recent = number // 15 + 1000
        hot = random.random(batch) < 0.5
        auction = np.where(hot, recent // 100 * 100, recent - random.integers(0, 100, batch))
        columns = {"auction": pa.array(auction), "bidder": pa.array(random.integers(0, 100000, batch)),
                   "price": pa.array(random.integers(1, 10**6, batch))}
        yield "bid", body(columns, number * 20 + 1_700_000_000_000_000)


def measure(arguments, keeps):
    folder = tempfile.mkdtemp()
    where = ["--data", folder + "/data", "--checkpoint-every", arguments.every] if keeps else ["--in-memory"]
    server = subprocess.Popen([arguments.tidemill, "serve", "--workers", "2", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", *where],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    port = next(re.search(r":(\d+)", line).group(1) for line in server.stdout if "HTTP" in line)
    ask = lambda path, data=None, kind=None: urllib.request.urlopen(urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=data, headers={"Content-Type": kind} if kind else {}), timeout=120).read()
    sql = lambda text: json.loads(ask("/v1/sql", text.encode()))
    tables = TABLES[arguments.query]
    for name, columns in tables.items():
        sql(f"CREATE TABLE {name} ({columns}, date_time timestamp, WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds')")
    query, events = (Q5, bids) if arguments.query == "q5" else (Q8, people_and_auctions)
    sql(f"CREATE MATERIALIZED VIEW {arguments.query} AS {query}")
    for name in tables:
        sql(f"CREATE MATERIALIZED VIEW n_{name} AS SELECT count(*) AS n FROM {name}")
    counts = " + ".join(f"(SELECT n FROM n_{name}) + (SELECT count(*) FROM {name}$late)" for name in tables)
    all_bodies = list(events(arguments.rows, arguments.batch))
    began = time.time()
    post = lambda body: ask("/v1/ingest/" + body[0], body[1], "application/vnd.apache.arrow.stream")
    with concurrent.futures.ThreadPoolExecutor(arguments.clients) as pool:
        list(pool.map(post, all_bodies))
    late = 0
    while True:
        rows = sql("SELECT " + counts)["results"][0]["rows"][0]
        if int(list(rows.values())[0] if isinstance(rows, dict) else rows[0]) >= arguments.rows:
            break
        time.sleep(0.05)
    took = time.time() - began
    metrics = ask("/metrics").decode()
    latency = dict(re.findall(r'tidemill_epoch_latency_seconds\{quantile="([\d.]+)"\} (\S+)', metrics))
    checkpoints = re.search(r"^tidemill_checkpoints_total (\S+)", metrics, re.M)
    print(f"{arguments.query} {'kept' if keeps else 'in memory':10} {took:6.2f} s {arguments.rows / took / 1e6:6.2f} M rows/s  epochs p50 {float(latency['0.5']) * 1e3:.1f} ms"
          f" p99 {float(latency['0.99']) * 1e3:.1f} ms  checkpoints {checkpoints.group(1) if checkpoints else '-'}", flush=True)
    server.kill()
    server.wait()
    shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tidemill")
    parser.add_argument("--query", choices=sorted(TABLES), default="q5")
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--batch", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--every", default="2s")
    parser.add_argument("--runs", type=int, default=2)
    arguments = parser.parse_args()
    for _ in range(arguments.runs):
        measure(arguments, False)
        measure(arguments, True)


main()
