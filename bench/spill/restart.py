#!/usr/bin/env python3
"""A server whose state is many times its memory: is killed, started again, and asked about what it had.

usage: restart.py TIDEMILL [--rows 40000000] [--memory 512MB] [--cgroup FOLDER]
Joins two sources of so many rows, counts the groups of a third one, and keeps a fourth one for a table whose rows come when all is read. With --cgroup (which has to be there, and
have its limit) the server runs in that group. Says what each step took; fails if an answer is wrong.
"""
import argparse, json, os, re, shutil, subprocess, sys, tempfile, time, urllib.request

# A source is read by the view that is there when it begins.
SOURCE = """CREATE SOURCE {name} (k bigint, v bigint)
WITH (connector = 'datagen', rows = {rows}, seed = 1, "fields.k.kind" = 'sequence', "fields.v.min" = 0, "fields.v.max" = 1000)"""
DEFINE = """CREATE TABLE probe (k bigint);
CREATE MATERIALIZED VIEW joined AS
SELECT count(*) AS pairs, min(a.k) AS first, max(b.k) AS last, count(*) FILTER (WHERE a.k <> b.k) AS wrong FROM a JOIN b ON a.k = b.k;
CREATE MATERIALIZED VIEW grouped AS
SELECT count(*) AS groups, sum(n) AS rows, min(n) AS least, max(n) AS most FROM (SELECT k % {third} AS g, count(*) AS n FROM c GROUP BY 1) AS x;
CREATE MATERIALIZED VIEW probed AS SELECT count(*) AS n, min(d.k) AS first, max(d.k) AS last FROM probe JOIN d ON d.k = probe.k"""


class Server:
    def __init__(self, arguments, folder):
        def join():
            if arguments.cgroup:
                with open(os.path.join(arguments.cgroup, "cgroup.procs"), "w") as group:
                    group.write(str(os.getpid()))
        self.began = time.time()
        self.process = subprocess.Popen(
            [arguments.tidemill, "serve", "--workers", "2", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data", folder + "/data",
             "--memory", arguments.memory, "--checkpoint-every", arguments.every],
            stdout=subprocess.PIPE, stderr=open(folder + "/log", "a"), text=True, preexec_fn=join)
        self.port = next((re.search(r":(\d+)", line).group(1) for line in self.process.stdout if "HTTP" in line), None)
        if self.port is None:
            sys.exit(f"the server ended with {self.process.wait()}; see {folder}/log")

    def ask(self, path, data=None):
        return urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data=data, timeout=600).read()

    def sql(self, text):
        rows = json.loads(self.ask("/v1/sql", text.encode()))["results"][-1].get("rows", [])
        return [list(row.values()) if isinstance(row, dict) else row for row in rows]

    def metric(self, name):
        found = re.search(rf"^{name} (\S+)", self.ask("/metrics").decode(), re.M)
        return float(found.group(1)) if found else 0.0

    def resident(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmHWM:\s+(\d+)", status.read()).group(1)) / 1024

    def kill(self):
        self.process.kill()
        self.process.wait()


def size(folder):
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names) / 2**30


def wait(server, done):
    while not done():
        if server.process.poll() is not None:
            sys.exit(f"the server ended with {server.process.returncode}")
        time.sleep(0.1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tidemill")
    parser.add_argument("--rows", type=int, default=40_000_000)
    parser.add_argument("--memory", default="512MB")
    parser.add_argument("--every", default="10s")
    parser.add_argument("--cgroup")
    arguments = parser.parse_args()
    rows, third = arguments.rows, arguments.rows // 3
    folder = tempfile.mkdtemp(dir=os.environ.get("TMPDIR"))
    server = Server(arguments, folder)
    began = time.time()
    sources = [SOURCE.format(name=name, rows=rows) for name in "abcd"]
    server.sql(";\n".join([*sources, DEFINE.format(third=third)]))
    wait(server, lambda: all(row[1] == "ended" for row in server.sql("SHOW SOURCES")))
    took = time.time() - began
    print(f"read 4 x {rows} rows in {took:.1f} s, most resident {server.resident():.0f} MiB", flush=True)

    def right(server):
        joined, grouped = server.sql("SELECT * FROM joined")[0], server.sql("SELECT * FROM grouped")[0]
        wanted = [[rows, 0, rows - 1, 0], [third, rows, 3, 3 + (rows % third > 0)]]
        found = [[int(value) for value in joined], [int(value) for value in grouped]]
        if found != wanted:
            sys.exit(f"{found}, not {wanted}")

    # What was read before is published before this.
    server.sql("INSERT INTO probe VALUES (-1)")
    right(server)
    written = server.metric("tidemill_checkpoints_total")
    server.sql("INSERT INTO probe VALUES (-2)")
    wait(server, lambda: server.metric("tidemill_checkpoints_total") > written)
    print(f"checkpoint after {time.time() - began:.1f} s; on disk: checkpoints {size(folder + '/data/checkpoints'):.2f} GiB, "
          f"spill {size(folder + '/data/spill'):.2f} GiB; most resident {server.resident():.0f} MiB", flush=True)
    for _ in range(2):
        server.kill()
        server = Server(arguments, folder)
        right(server)
        answered = time.time() - server.began
        server.sql(f"DELETE FROM probe; INSERT INTO probe SELECT i * {rows // 1000} FROM generate_series(0, 999) AS g(i)")
        wait(server, lambda: server.sql("SELECT * FROM probed")[0][0] in (1000, "1000"))
        print(f"answered {answered:.1f} s after the kill, 1,000 cold keys {time.time() - server.began - answered:.2f} s later, "
              f"most resident {server.resident():.0f} MiB", flush=True)
        right(server)
        written = server.metric("tidemill_checkpoints_total")
        wait(server, lambda: server.metric("tidemill_checkpoints_total") > written)
    server.kill()
    shutil.rmtree(folder)


main()
