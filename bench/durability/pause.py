#!/usr/bin/env python3
"""How long a row waits to be seen while checkpoints are written: rows go in at a steady rate, and now and then one that is waited for.

usage: pause.py TIDEMILL [--state 4000000] [--rate 20000] [--seconds 20] [--every 1s]
Prints the time from the request to the answer `published`, without and with a data folder.
"""
import argparse, json, re, shutil, subprocess, tempfile, threading, time, urllib.request


def measure(arguments, keeps):
    folder = tempfile.mkdtemp()
    where = ["--data", folder + "/data", "--checkpoint-every", arguments.every] if keeps else ["--in-memory"]
    server = subprocess.Popen([arguments.tidemill, "serve", "--workers", "2", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", *where],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    port = next(re.search(r":(\d+)", line).group(1) for line in server.stdout if "HTTP" in line)
    ask = lambda path, data=None: urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data), timeout=600).read()
    sql = lambda text: json.loads(ask("/v1/sql", text.encode()))
    sql("CREATE TABLE orders (id bigint, customer int, price bigint); CREATE TABLE customers (id int PRIMARY KEY, name text)")
    sql("CREATE MATERIALIZED VIEW joined AS SELECT o.id, o.price, c.name FROM orders o JOIN customers c ON c.id = o.customer")
    sql("CREATE MATERIALIZED VIEW spent AS SELECT name, count(*) AS n, sum(price) AS s, min(price) AS least FROM joined GROUP BY name")
    sql("INSERT INTO customers SELECT CAST(g AS int), 'name ' || g FROM generate_series(0, 199999) AS s(g)")
    for first in range(0, arguments.state, 200_000):
        sql(f"INSERT INTO orders SELECT g, CAST(g * 7 % 200000 AS int), g * 31 % 997 FROM generate_series({first}, {first + 199_999}) AS s(g)")
    end = time.time() + arguments.seconds

    def feed():
        number, began = arguments.state, time.time()
        while time.time() < end:
            size = arguments.rate // 50
            body = "\n".join(f'{{"id":{number + i},"customer":{(number + i) * 7 % 200000},"price":{i}}}' for i in range(size))
            ask("/v1/ingest/orders", body.encode())
            number += size
            time.sleep(max(0, began + (number - arguments.state) / arguments.rate - time.time()))

    feeder = threading.Thread(target=feed)
    feeder.start()
    waits = []
    while time.time() < end:
        began = time.perf_counter()
        ask("/v1/ingest/orders?wait=published", b'{"id": -1, "customer": 1, "price": 1}')
        waits.append((time.perf_counter() - began) * 1e3)
        time.sleep(0.005)
    feeder.join()
    metrics = ask("/metrics").decode()
    checkpoints = re.search(r"^tidemill_checkpoints_total (\S+)", metrics, re.M)
    waits.sort()
    at = lambda share: waits[min(len(waits) - 1, int(len(waits) * share))]
    print(f"{'kept' if keeps else 'in memory':10} {len(waits)} rows waited for: p50 {at(.5):.2f} ms  p99 {at(.99):.2f} ms  p99.9 {at(.999):.2f} ms"
          f"  max {waits[-1]:.2f} ms  checkpoints {checkpoints.group(1) if checkpoints else '-'}", flush=True)
    server.kill()
    server.wait()
    shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tidemill")
    parser.add_argument("--state", type=int, default=4_000_000)
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--every", default="1s")
    arguments = parser.parse_args()
    measure(arguments, False)
    measure(arguments, True)


main()
