"""Follows one dataset of a Flight server by DoExchange with pyarrow.flight, and prints its first rows as JSON.

Usage: follow.py LOCATION TABLE ROWS
"""

import json
import sys

import pyarrow
from pyarrow import flight


def main() -> None:
    location, table, rows = sys.argv[1:]
    with flight.connect(location) as client:
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_path(table))
        # The descriptor goes with the first message, whatever that holds.
        writer.begin(pyarrow.schema([]))
        changes = []
        while len(changes) < int(rows):
            changes.extend(reader.read_chunk().data.to_pylist())
        schema = {field.name: str(field.type) for field in reader.schema}
        reader.cancel()
    json.dump({"schema": schema, "changes": changes}, sys.stdout, default=str)


if __name__ == "__main__":
    main()
