#!/usr/bin/env python3
"""Nexmark's bids over HTTP as Arrow into a server that keeps them, and one that does not: rows a second with view q5.

usage: ingest.py TIDEMILL [--rows 4000000] [--batch 20000] [--clients 4] [--every 2s]
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


def bodies(rows, batch):
    random = np.random.default_rng(1)
    for first in range(0, rows, batch):
        number = np.arange(first, first + batch)
        recent = number // 15 + 1000
        hot = random.random(batch) < 0.5
        auction = np.where(hot, recent // 100 * 100, recent - random.integers(0, 100, batch))
        table = pa.table({
            "auction": pa.array(auction), "bidder": pa.array(random.integers(0, 100000, batch)),
            "price": pa.array(random.integers(1, 10**6, batch)),
            "date_time": pa.array(number * 20 + 1_700_000_000_000_000, pa.timestamp("us"))})
        out = io.BytesIO()
        with pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
        yield out.getvalue()


def measure(arguments, keeps):
    folder = tempfile.mkdtemp()
    where = ["--data", folder + "/data", "--checkpoint-every", arguments.every] if keeps else ["--in-memory"]
    server = subprocess.Popen([arguments.tidemill, "serve", "--workers", "2", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", *where],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    port = next(re.search(r":(\d+)", line).group(1) for line in server.stdout if "HTTP" in line)
    ask = lambda path, data=None, kind=None: urllib.request.urlopen(urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=data, headers={"Content-Type": kind} if kind else {}), timeout=120).read()
    sql = lambda text: json.loads(ask("/v1/sql", text.encode()))
    sql("CREATE TABLE bid (auction bigint, bidder bigint, price bigint, date_time timestamp, WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds')")
    sql("CREATE MATERIALIZED VIEW q5 AS " + Q5)
    sql("CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM bid")
    all_bodies = list(bodies(arguments.rows, arguments.batch))
    began = time.time()
    post = lambda body: ask("/v1/ingest/bid", body, "application/vnd.apache.arrow.stream")
    with concurrent.futures.ThreadPoolExecutor(arguments.clients) as pool:
        list(pool.map(post, all_bodies))
    late = 0
    while True:
        rows = sql("SELECT n + (SELECT count(*) FROM bid$late) FROM n")["results"][0]["rows"][0]
        if int(list(rows.values())[0] if isinstance(rows, dict) else rows[0]) >= arguments.rows:
            break
        time.sleep(0.05)
    took = time.time() - began
    metrics = ask("/metrics").decode()
    latency = dict(re.findall(r'tidemill_epoch_latency_seconds\{quantile="([\d.]+)"\} (\S+)', metrics))
    checkpoints = re.search(r"^tidemill_checkpoints_total (\S+)", metrics, re.M)
    print(f"{'kept' if keeps else 'in memory':10} {took:6.2f} s {arguments.rows / took / 1e6:6.2f} M rows/s  epochs p50 {float(latency['0.5']) * 1e3:.1f} ms"
          f" p99 {float(latency['0.99']) * 1e3:.1f} ms  checkpoints {checkpoints.group(1) if checkpoints else '-'}", flush=True)
    server.kill()
    server.wait()
    shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tidemill")
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--batch", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--every", default="2s")
    arguments = parser.parse_args()
    for _ in range(2):
        measure(arguments, False)
        measure(arguments, True)


main()
