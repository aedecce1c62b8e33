"""DuckDB in this process: tables come over Flight, statements by line, seconds and rows go out.

    python duck.py ADDRESS THREADS TABLE...

Each line of standard input is a statement as a JSON string; each line of standard output is `SECONDS ROWS`,
after a first one that says `ready`.
"""

import json
import sys
import time

import duckdb
import pyarrow.flight as flight

address, threads, tables = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
connection = duckdb.connect(config={"threads": threads})
upstream = flight.connect(f"grpc://{address}")
for table in tables:
    rows = upstream.do_get(flight.Ticket(f"SELECT * FROM {table}".encode())).read_all()
    connection.execute(f"CREATE TABLE {table} AS SELECT * FROM rows")
    del rows
upstream.close()
print("ready", flush=True)
for line in sys.stdin:
    begun = time.perf_counter()
    answer = connection.execute(json.loads(line)).to_arrow_table()
    print(time.perf_counter() - begun, answer.num_rows, flush=True)
