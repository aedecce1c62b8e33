"""Writes rows into a table of a Flight server with pyarrow.flight, and prints what it was told as JSON.

Usage: write.py LOCATION TABLE
"""

import json
import sys

import pyarrow as pa
from pyarrow import flight


def main() -> None:
    location, table = sys.argv[1:]
    descriptor = flight.FlightDescriptor.for_path(table)
    words = pa.array(["a", "b", "a"]).dictionary_encode()
    rows = pa.table({"name": words, "id": pa.array([1, 2, 3], pa.int64())})
    with flight.connect(location) as client:
        writer, results = client.do_put(descriptor, rows.schema)
        with writer:
            writer.write_table(rows)
            # One acknowledgement before the next rows.
            first = json.loads(results.read().to_pybytes())
            writer.write_table(rows)
            writer.write_table(rows)
            writer.done_writing()
            last = first
            while (result := results.read()) is not None:
                last = json.loads(result.to_pybytes())
        # Nobody reads the acknowledgements.
        writer, _ = client.do_put(descriptor, rows.schema)
        for _ in range(100):
            writer.write_table(rows)
        writer.close()
        try:
            writer, _ = client.do_put(descriptor, pa.schema([("id", pa.string())]))
            writer.write_table(pa.table({"id": ["x"]}))
            writer.close()
            refused = None
        except pa.ArrowInvalid as error:
            refused = str(error)
        held = client.do_get(flight.Ticket(f"select count(*) as n from {table}".encode())).read_all()
    json.dump({"first": first, "last": last, "refused": refused, "held": held.to_pylist()}, sys.stdout)


if __name__ == "__main__":
    main()
