"""Reads one query and one schema through a Flight server with pyarrow.flight, and prints both as JSON.

Usage: read.py LOCATION TABLE SQL
"""

import json
import sys

from pyarrow import flight


def main() -> None:
    location, table, sql = sys.argv[1:]
    with flight.connect(location) as client:
        # What spicepy does with an API key: a Basic handshake with an empty user.
        token = client.authenticate_basic_token("", "any")
        options = flight.FlightCallOptions(headers=[token])
        info = client.get_flight_info(flight.FlightDescriptor.for_command(sql), options)
        tables = [client.do_get(endpoint.ticket, options).read_all() for endpoint in info.endpoints]
        schema = client.get_schema(flight.FlightDescriptor.for_path(table), options).schema
        anonymous = client.do_get(flight.Ticket(sql.encode())).read_all()
    answer = {
        "promised": [field.name for field in info.schema],
        "rows": [row for table in tables for row in table.to_pylist()],
        "types": {field.name: str(field.type) for field in tables[0].schema},
        "path_schema": {field.name: str(field.type) for field in schema},
        "same_without_token": anonymous.equals(tables[0]),
    }
    json.dump(answer, sys.stdout, default=str)


if __name__ == "__main__":
    main()
