#!/usr/bin/env python3
"""How long a row waits to be seen while other things are broken: sinks whose webhooks hang, refuse and fail, a view that has stopped, one each of
whose rows is an error, a source whose file is no longer what it was.

usage: isolation.py TIDEMILL [--rate 20000] [--seconds 30]
Prints the time from the request to the answer `published`, first with all well, then with all of that broken beside.
"""
import argparse, http.server, json, os, re, shutil, subprocess, tempfile, threading, time, urllib.request


class Endpoint(http.server.BaseHTTPRequestHandler):
    """Well until it is broken; then /hangs does not answer, /fails says 500."""
    broken = False

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if Endpoint.broken and self.path == "/hangs":
            time.sleep(3600)
        self.send_response(500 if Endpoint.broken and self.path == "/fails" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def serve_http():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def waits(ask, rate, seconds, first):
    end, done = time.time() + seconds, []

    def feed():
        number, began = first, time.time()
        while time.time() < end:
            size = rate // 50
            body = "\n".join(f'{{"id":{number + i},"customer":{(number + i) * 7 % 20000},"price":{i}}}' for i in range(size))
            ask("/v1/ingest/orders", body.encode())
            number += size
            time.sleep(max(0, began + (number - first) / rate - time.time()))

    feeder = threading.Thread(target=feed)
    feeder.start()
    while time.time() < end:
        began = time.perf_counter()
        ask("/v1/ingest/orders?wait=published", b'{"id": -1, "customer": 1, "price": 1}')
        done.append((time.perf_counter() - began) * 1e3)
        time.sleep(0.005)
    feeder.join()
    return sorted(done)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tidemill")
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--seconds", type=int, default=30)
    arguments = parser.parse_args()
    folder, good, refusing = tempfile.mkdtemp(), serve_http(), serve_http()
    server = subprocess.Popen([arguments.tidemill, "serve", "--workers", "2", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data", folder + "/data"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    port = next(re.search(r":(\d+)", line).group(1) for line in server.stdout if "HTTP" in line)
    ask = lambda path, data=None: urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data), timeout=600).read()
    sql = lambda text: json.loads(ask("/v1/sql", text.encode()))
    with open(folder + "/lines.json", "w") as lines:
        lines.write('{"a": 1}\n' * 10_000_000)
    sql("CREATE TABLE orders (id bigint, customer int, price bigint); CREATE TABLE customers (id int PRIMARY KEY, name text)")
    sql("CREATE MATERIALIZED VIEW joined AS SELECT o.id, o.price, c.name FROM orders o JOIN customers c ON c.id = o.customer")
    sql("CREATE MATERIALIZED VIEW spent AS SELECT name, count(*) AS n, sum(price) AS s, min(price) AS least FROM joined GROUP BY name")
    sql("INSERT INTO customers SELECT CAST(g AS int), 'name ' || g FROM generate_series(0, 19999) AS s(g)")

    def report(what, found):
        at = lambda share: found[min(len(found) - 1, int(len(found) * share))]
        print(f"{what:12} {len(found)} rows waited for: p50 {at(.5):.2f} ms  p99 {at(.99):.2f} ms  p99.9 {at(.999):.2f} ms  max {found[-1]:.2f} ms", flush=True)

    waits(ask, arguments.rate, 3, 0)
    report("all well", waits(ask, arguments.rate, arguments.seconds, 10_000_000))

    for name, endpoint, path in [("hangs", good, "/hangs"), ("fails", good, "/fails"), ("refuses", refusing, "/")]:
        # Each gets a changing group a customer, as views of alerts do.
        sql(f"CREATE SINK {name} AS SELECT customer, count(*) AS n FROM orders WHERE price = 7 GROUP BY customer "
            f"WITH (connector = 'webhook', url = 'http://127.0.0.1:{endpoint.server_address[1]}{path}')")
    sql(f"CREATE SOURCE lines (a int) WITH (connector = 'file', format = 'json', path = '{folder}/lines.json')")
    sql("CREATE MATERIALIZED VIEW wrong AS SELECT id, 1 / (customer - customer) AS x FROM orders WHERE price = 3")
    sql("CREATE TABLE x (a int); CREATE MATERIALIZED VIEW stops AS SELECT p.a, q.a AS b FROM x p, x q")
    time.sleep(1)
    Endpoint.broken = True
    refusing.shutdown()
    refusing.server_close()
    sql("CREATE MATERIALIZED VIEW of_lines AS SELECT count(*) AS n FROM lines")
    os.truncate(folder + "/lines.json", 10)
    sql("INSERT INTO x SELECT CAST(g AS int) FROM generate_series(1, 9000) AS s(g)")
    report("with broken", waits(ask, arguments.rate, arguments.seconds, 20_000_000))
    for show in ["SHOW VIEWS", "SHOW SINKS", "SHOW SOURCES"]:
        for row in sql(show)["results"][0]["rows"]:
            row = list(row.values()) if isinstance(row, dict) else row
            if row[1] != "running":
                print(f"  {row[0]}: {row[1]}: {row[-1]}")
    server.kill()
    server.wait()
    shutil.rmtree(folder)


main()
