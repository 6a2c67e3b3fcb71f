#!/usr/bin/env python3
"""Nexmark's events from files, as JSON, into a server that keeps what it knows of them, and one that does not: events a second with q5 or q8.

usage: file.py TIDEMILL DATA [--query q5] [--events 10000000] [--every 10s]
DATA is a folder for the events, which are made if it is not there: `part-0.json` and `part-1.json`, each with a part of any time.
"""
import argparse, json, os, pathlib, re, shutil, subprocess, tempfile, time, urllib.request

NEXMARK = pathlib.Path(__file__).resolve().parent.parent / "nexmark"


def schema(source):
    statements = (NEXMARK / "schema.sql").read_text().replace("${SOURCE}", source).split(";\n")
    return [sql[sql.index("CREATE"):] for sql in statements if "SOURCE side_input" not in sql and "CREATE" in sql]


def write_events(arguments):
    """Has the built-in generator write them, a file per epoch, and deals these out."""
    with tempfile.TemporaryDirectory(dir=pathlib.Path(arguments.data).absolute().parent) as folder:
        source = f"WITH (connector = 'nexmark', events = {arguments.events})"
        sink = f"CREATE SINK s AS SELECT event_type, person, auction, bid FROM events WITH (connector = 'file', path = '{folder}/', format = 'json')"
        subprocess.run([arguments.tidemill, "run", "--workers", "1", "-c", schema(source)[0] + ";" + sink], check=True)
        os.mkdir(arguments.data)
        for number, name in enumerate(sorted(name for name in os.listdir(folder) if name.endswith("json"))):
            with open(f"{arguments.data}/part-{number % 2}.json", "ab") as part, open(f"{folder}/{name}", "rb") as file:
                shutil.copyfileobj(file, part)
            os.remove(f"{folder}/{name}")


def measure(arguments, keeps):
    folder = tempfile.mkdtemp()
    where = ["--data", folder + "/data", "--checkpoint-every", arguments.every] if keeps else ["--in-memory"]
    server = subprocess.Popen([arguments.tidemill, "serve", "--workers", "2", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", *where],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    port = next(re.search(r":(\d+)", line).group(1) for line in server.stdout if "HTTP" in line)
    ask = lambda path, data=None: urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data=data, timeout=120).read()
    sql = lambda text: json.loads(ask("/v1/sql", text.encode()))
    source = f"WITH (connector = 'file', format = 'json', path = '{os.path.abspath(arguments.data)}/part-*.json')"
    for statement in schema(source):
        sql(statement)
    began = time.time()
    sql(f"CREATE MATERIALIZED VIEW {arguments.query} AS " + (NEXMARK / f"{arguments.query}.sql").read_text())
    while True:
        status = sql("SHOW SOURCES")["results"][0]["rows"][0]
        status = list(status.values()) if isinstance(status, dict) else status
        if status[1] == "ended":
            break
        time.sleep(0.02)
    took, events = time.time() - began, int(status[2])
    metrics = ask("/metrics").decode()
    checkpoints = re.search(r"^tidemill_checkpoints_total (\S+)", metrics, re.M)
    print(f"{arguments.query} {'kept' if keeps else 'in memory':10} {took:6.2f} s {events / took / 1e6:6.2f} M events/s"
          f"  checkpoints {checkpoints.group(1) if checkpoints else '-'}", flush=True)
    server.kill()
    server.wait()
    shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tidemill")
    parser.add_argument("data")
    parser.add_argument("--query", choices=["q5", "q8"], default="q5")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--every", default="10s")
    arguments = parser.parse_args()
    if not os.path.exists(arguments.data):
        write_events(arguments)
    for _ in range(2):
        measure(arguments, False)
        measure(arguments, True)


main()
