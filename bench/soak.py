#!/usr/bin/env python3
"""Hours in minutes: mixed load on one sidecar while datasets are refreshed, the spicepod changes and the upstream dies.

What grows, leaks: memory and open files are sampled after each round and printed with a line of best fit over the second half.
Needs nothing but Python and a built binary:

    cargo build --release && python3 bench/soak.py --minutes 15
"""

import argparse
import os
import pathlib
import random
import signal
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

HTTP, FLIGHT, METRICS, UPSTREAM = 28090, 25051, 29090, 25061
TABLES = ["orders", "customer", "lineitem"]
QUERIES = [
    "SELECT count(*) AS n FROM lineitem",
    "SELECT o_orderstatus, count(*) AS n FROM orders GROUP BY o_orderstatus",
    "SELECT c_mktsegment, sum(o_totalprice) AS total FROM orders JOIN customer ON o_custkey = c_custkey GROUP BY c_mktsegment",
    "SELECT * FROM lineitem WHERE l_quantity < 3 LIMIT 200",
    "SELECT count(*) AS n FROM shipped",
    "SELECT nothing FROM nowhere",
]


def spicepod(folder, interval, with_customer):
    text = "version: v1\nkind: Spicepod\nname: soak\nruntime: {query: {timeout: 5s}}\ndatasets:\n"
    for table in TABLES:
        if table == "customer" and not with_customer:
            continue
        text += f"  - from: spice.ai:https://localhost:{UPSTREAM}\n    name: {table}\n    params:\n"
        text += "      spiceai_api_key: ${secrets:SPICEAI_API_KEY}\n"
        text += f"      spiceai_tls_ca_certificate_file: {folder}/ca.pem\n"
        if table == "lineitem":
            text += f"    acceleration: {{enabled: true, refresh_check_interval: {interval}s}}\n"
    return text + "views: [{name: shipped, sql: 'select l_orderkey from lineitem where l_shipdate is not null'}]\n"


class Soak:
    def __init__(self, binary):
        self.binary, self.folder = binary, tempfile.mkdtemp(prefix="sidewing-soak-")
        self.is_over, self.lock = threading.Event(), threading.Lock()
        self.asked = self.failed = self.broken = 0
        self.latencies = []

    def start_upstream(self):
        command = [self.binary, "demo-upstream", "--dir", self.folder, "--scale", "0.01", "--flight", f"127.0.0.1:{UPSTREAM}"]
        self.upstream = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.upstream.stdout:
            if line.strip().startswith("flight"):
                return
        raise SystemExit("the upstream did not start")

    def start_sidecar(self):
        keys = dict(line.split("=", 1) for line in pathlib.Path(self.key_file()).read_text().split() if "=" in line)
        environment = {**os.environ, "SPICEAI_API_KEY": next(iter(keys.values())).strip('"')}
        self.pod = pathlib.Path(self.folder, "spicepod.yaml")
        self.pod.write_text(spicepod(self.folder, 2, True))
        addresses = ["--http", f"127.0.0.1:{HTTP}", "--flight", f"127.0.0.1:{FLIGHT}", "--metrics", f"127.0.0.1:{METRICS}"]
        log = open(os.path.join(self.folder, "log"), "w")
        self.sidecar = subprocess.Popen([self.binary, "run", str(self.pod), *addresses], env=environment, stdout=log, stderr=log)

    def key_file(self):
        return os.path.join(self.folder, "core.env")

    def ask(self, path="/v1/sql", body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{HTTP}{path}", data=body and body.encode())
        return urllib.request.urlopen(request, timeout=15).read()

    def client(self, seed):
        dice = random.Random(seed)
        while not self.is_over.is_set():
            sql, begun, failed, broken = dice.choice(QUERIES), time.monotonic(), False, False
            try:
                self.ask(body=sql)
            except urllib.error.HTTPError:
                failed = True
            except OSError:
                broken = True
            with self.lock:
                self.asked += 1
                self.failed += failed
                self.broken += broken
                self.latencies.append(time.monotonic() - begun)

    def seen(self):
        status = pathlib.Path(f"/proc/{self.sidecar.pid}/status").read_text()
        memory = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024
        return memory, len(os.listdir(f"/proc/{self.sidecar.pid}/fd"))

    def round(self, number):
        """A reload of either form, a refresh that is asked for, and now and then an upstream that dies."""
        self.pod.write_text(spicepod(self.folder, 2 + number % 3, number % 2 == 0))
        self.ask("/v1/datasets/lineitem/acceleration/refresh", "{}")
        if number % 4 == 3:
            self.upstream.send_signal(signal.SIGKILL)
            self.upstream.wait()
            time.sleep(4)
            self.start_upstream()
        time.sleep(10)


def slope(values):
    """Per round, of the second half."""
    half = values[len(values) // 2:]
    if len(half) < 3:
        return 0.0
    return statistics.linear_regression(range(len(half)), half).slope


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=15)
    arguments.add_argument("--binary", default="target/release/sidewing")
    arguments.add_argument("--clients", type=int, default=6)
    arguments = arguments.parse_args()
    soak = Soak(arguments.binary)
    soak.start_upstream()
    soak.start_sidecar()
    time.sleep(5)
    clients = [threading.Thread(target=soak.client, args=(seed,)) for seed in range(arguments.clients)]
    for client in clients:
        client.start()
    memory, files, end = [], [], time.monotonic() + arguments.minutes * 60
    print("| round | queries | told failures | broken | p50 ms | MB | files |\n|---|---|---|---|---|---|---|")
    try:
        while time.monotonic() < end:
            soak.round(len(memory))
            megabytes, descriptors = soak.seen()
            memory.append(megabytes)
            files.append(descriptors)
            with soak.lock:
                median = statistics.median(soak.latencies) * 1e3
                soak.latencies.clear()
                print(f"| {len(memory)} | {soak.asked} | {soak.failed} | {soak.broken} | {median:.1f} | {megabytes:.0f} | {descriptors} |", flush=True)
    finally:
        soak.is_over.set()
        for client in clients:
            client.join()
        soak.sidecar.terminate()
        code = soak.sidecar.wait(60)
        soak.upstream.kill()
    print(f"\nper round in the second half: {slope(memory):+.2f} MB, {slope(files):+.2f} files; exit code {code}; log: {soak.folder}/log")
    if soak.broken or code:
        raise SystemExit("answers were broken off, or the sidecar did not end well")


if __name__ == "__main__":
    main()
