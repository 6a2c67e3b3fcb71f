#!/usr/bin/env python3
"""Whether a server grows while nothing that it has to keep does: memory, open files and threads over time.

usage: soak.py TIDEMILL [--minutes 10] [--every 1s] [--workers 2]
Rows of a fixed number of keys are written over and over, views, tables of events and sinks come and go, subscribers
and sessions connect and leave, and checkpoints are taken. In the end prints a table, and fails if the last quarter of the time shows
more than the second one did.
"""
import argparse, json, os, random, re, shutil, socket, struct, subprocess, sys, tempfile, threading, time, urllib.error, urllib.request

KEYS = 20_000
VIEWS = [
    "SELECT g, count(*) AS n, sum(v) AS s, max(v) AS most FROM t GROUP BY g",
    "SELECT t.k, t.v, names.name FROM t JOIN names ON names.g = t.g",
    "SELECT k, v FROM t ORDER BY v DESC, k LIMIT 20",
    "SELECT g, k, rank() OVER (PARTITION BY g ORDER BY v, k) AS place FROM t WHERE k < 2000",
    "SELECT g, string_agg(CAST(v AS text), ',' ORDER BY v, k) AS list FROM t WHERE k < 500 GROUP BY g",
]


class Server:
    def __init__(self, arguments):
        self.folder = tempfile.mkdtemp()
        command = [arguments.tidemill, "serve", "--workers", str(arguments.workers), "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0",
                   "--data", self.folder + "/data", "--checkpoint-every", arguments.every, "--side-table-rows", "1000", "--history-bytes", "2000000"]
        self.log = open(self.folder + "/log", "w+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        ports = {}
        for line in self.process.stdout:
            if found := re.search(r"127\.0\.0\.1:(\d+)", line):
                ports["http" if "HTTP" in line else "pg"] = int(found.group(1))
            if len(ports) == 2:
                break
        self.http, self.pg = ports["http"], ports["pg"]

    def ask(self, path, data=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data=data)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read()

    def sql(self, text):
        return json.loads(self.ask("/v1/sql", text.encode()))

    def sample(self):
        status = open(f"/proc/{self.process.pid}/status").read()
        number = lambda name: int(re.search(rf"^{name}:\s+(\d+)", status, re.M).group(1))
        metrics = self.ask("/metrics").decode()
        checkpoints = re.search(r"^tidemill_checkpoints_total (\S+)", metrics, re.M)
        size = sum(os.path.getsize(os.path.join(where, name)) for where, _, names in os.walk(self.folder + "/data") for name in names
                   if os.path.exists(os.path.join(where, name)))
        return {"rss": number("VmRSS") / 1024, "files": len(os.listdir(f"/proc/{self.process.pid}/fd")), "threads": number("Threads"),
                "disk": size / 2**20, "checkpoints": int(float(checkpoints.group(1))) if checkpoints else 0}


class Churn:
    """Threads that do something again and again until the end, and how often each has."""

    def __init__(self, server, end):
        self.server, self.end, self.done, self.wrong, self.threads = server, end, {}, [], []

    def spawn(self, name, pause, act):
        self.done[name] = 0

        def loop():
            state = random.Random(name)
            while time.time() < self.end and not self.wrong:
                try:
                    act(state, self.done[name])
                except Exception as error:
                    detail = error.read().decode() if isinstance(error, urllib.error.HTTPError) else ""
                    self.wrong.append(f"{name}: {error!r} {detail}")
                self.done[name] += 1
                time.sleep(pause)

        thread = threading.Thread(target=loop)
        thread.start()
        self.threads.append(thread)

    def rows(self, state, turn):
        row = lambda: f'{{"k":{state.randrange(KEYS)},"g":{state.randrange(200)},"v":{state.randrange(1000)}}}'
        self.server.ask("/v1/ingest/t", "\n".join(row() for _ in range(200)).encode())

    def events(self, state, turn):
        # Rows of a table with a watermark stay, so the table goes.
        name, first = f"events_{turn // 20}", turn % 20 * 40
        if turn % 20 == 0:
            self.server.sql(f"CREATE TABLE {name} (n bigint, at timestamp, WATERMARK FOR at AS at - INTERVAL '1 second');"
                            f"CREATE MATERIALIZED VIEW {name}_seconds AS SELECT window_start, count(*) AS n FROM TUMBLE({name}, at, "
                            "INTERVAL '1 second') GROUP BY window_start EMIT ON WINDOW CLOSE")
        event = lambda n: f'{{"n":{n},"at":"2024-01-01T00:{n // 600:02}:{n // 10 % 60:02}.{n % 10}00"}}'
        self.server.ask(f"/v1/ingest/{name}", "\n".join(event(first + i) for i in range(40)).encode())
        if turn % 20 == 19:
            self.server.sql(f"DROP TABLE {name} CASCADE")

    def views(self, state, turn):
        name, query = f"passing_{turn}", state.choice(VIEWS)
        self.server.sql(f"CREATE MATERIALIZED VIEW {name} AS {query}")
        self.server.sql(f"SELECT * FROM {name} LIMIT 3")
        self.server.sql(f"DROP MATERIALIZED VIEW {name}")

    def tables(self, state, turn):
        self.server.sql(f"CREATE TABLE extra_{turn} (a int PRIMARY KEY, b text); INSERT INTO extra_{turn} SELECT g, repeat('x', 100) FROM "
                        f"generate_series(1, 500) AS s(g); DROP TABLE extra_{turn}")

    def sinks(self, state, turn):
        place = f"{self.server.folder}/place-{turn}"
        self.server.sql(f"CREATE SINK sink_{turn} FROM most WITH (connector = 'file', path = '{place}/', format = 'json')")
        time.sleep(0.3)
        self.server.sql(f"DROP SINK sink_{turn}")
        shutil.rmtree(place)

    def subscribers(self, state, turn):
        view = state.choice(["most", "sums", "joined", "t"])
        with socket.create_connection(("127.0.0.1", self.server.http), timeout=60) as connection:
            connection.sendall(f"GET /v1/subscribe/{view} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            until = time.time() + state.random()
            while time.time() < until:
                if not connection.recv(65536):
                    raise RuntimeError(f"the subscription to {view} ended")

    def sessions(self, state, turn):
        with socket.create_connection(("127.0.0.1", self.server.pg), timeout=60) as connection:
            parameters = b"user\0soak\0\0"
            connection.sendall(struct.pack("!ii", 8 + len(parameters), 196608) + parameters)
            query = b"SELECT count(*), sum(v) FROM t\0"
            connection.sendall(b"Q" + struct.pack("!i", 4 + len(query)) + query)
            answer = b""
            while answer.count(b"Z\0\0\0\x05I") < 2:
                piece = connection.recv(65536)
                if not piece:
                    raise RuntimeError(f"the session ended: {answer!r}")
                answer += piece
            if state.random() < 0.5:
                connection.sendall(b"X\0\0\0\x04")


def grows(samples):
    """What the last quarter of the time shows more of than the second one; the first is for warming up."""
    quarter = max(1, len(samples) // 4)
    before, after = samples[quarter:2 * quarter], samples[-quarter:]
    peak = lambda part, name: max(sample[name] for sample in part)
    allowed = {"rss": lambda was: was * 1.1 + 16, "files": lambda was: was + 8, "threads": lambda was: was + 8, "disk": lambda was: was * 1.5 + 32}
    return [f"{name}: {peak(before, name):.0f} in the second quarter, {peak(after, name):.0f} in the last"
            for name, most in allowed.items() if peak(after, name) > most(peak(before, name))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tidemill")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", default="1s")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    server = Server(arguments)
    server.sql("CREATE TABLE t (k int PRIMARY KEY, g int, v int); CREATE TABLE names (g int PRIMARY KEY, name text)")
    server.sql("INSERT INTO names SELECT g, 'name ' || g FROM generate_series(0, 199) AS s(g);"
               f"INSERT INTO t SELECT g, g % 200, g % 1000 FROM generate_series(0, {KEYS - 1}) AS s(g)")
    for name, view in [("most", VIEWS[2]), ("sums", VIEWS[0]), ("joined", VIEWS[1])]:
        server.sql(f"CREATE MATERIALIZED VIEW {name} AS {view}")
    began = time.time()
    churn = Churn(server, began + arguments.minutes * 60)
    for name, pause in [("rows", 0.05), ("events", 0.05), ("views", 0.1), ("tables", 0.2), ("sinks", 0.2), ("subscribers", 0.05), ("sessions", 0.05)]:
        churn.spawn(name, pause, getattr(churn, name))
    samples, pause = [], max(0.5, arguments.minutes * 60 / 240)
    while time.time() < churn.end and not churn.wrong:
        time.sleep(pause)
        try:
            samples.append({"at": time.time() - began} | server.sample())
        except Exception as error:
            churn.wrong.append(f"the server does not answer: {error!r}")
    for thread in churn.threads:
        thread.join()
    wrong = churn.wrong
    if not wrong:
        for view in ["most", "sums", "joined"]:
            answer = server.ask("/v1/sql", f"VERIFY MATERIALIZED VIEW {view}".encode()).decode()
            if json.loads(answer).get("results", [{}])[0].get("rows"):
                wrong.append(f"view {view} is wrong: {answer[:300]}")
    print(f"{'minutes':>8} {'RSS MiB':>8} {'files':>6} {'threads':>8} {'disk MiB':>9} {'checkpoints':>12}")
    for sample in samples[::max(1, len(samples) // 20)]:
        print(f"{sample['at'] / 60:8.1f} {sample['rss']:8.0f} {sample['files']:6} {sample['threads']:8} {sample['disk']:9.1f} {sample['checkpoints']:12}")
    print("done: " + ", ".join(f"{name} {times}" for name, times in churn.done.items()))
    wrong += grows(samples) if len(samples) >= 8 else ["too short to tell"]
    server.process.kill()
    server.process.wait()
    for text in wrong:
        print("FAULT " + text)
    if wrong:
        sys.exit(f"the server's folder is {server.folder}")
    shutil.rmtree(server.folder)


main()
