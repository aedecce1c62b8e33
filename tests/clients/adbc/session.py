"""adbc-driver-flightsql against a sidewing: what a program does with a connection, told as JSON.

    session.py URI
"""

import datetime
import decimal
import json
import sys

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa


def rows(cursor, sql, parameters=None):
    cursor.execute(sql, parameters)
    return cursor.fetch_arrow_table().to_pylist()


def refused(call):
    """The class of the error that a call raises, and what it says."""
    try:
        call()
    except adbc_driver_manager.Error as error:
        return [type(error).__name__, str(error)]
    return None


def parameters(cursor):
    """Values of many types as they come back."""
    values = [
        7,
        1.5,
        "it's",
        b"\x00\xff",
        True,
        decimal.Decimal("-12.340"),
        datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 12, 30, 0, 1),
        datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc),
        datetime.time(1, 2, 3, 4),
        None,
    ]
    names = ", ".join(f"${n} as p{n}" for n in range(1, len(values) + 1))
    found = rows(cursor, f"select {names}", values)[0]
    return [value == sent for value, sent in zip(found.values(), values, strict=True)]


def objects(connection, depth):
    catalogs = connection.adbc_get_objects(depth=depth).read_all().to_pylist()
    if depth == "catalogs":
        return [catalog["catalog_name"] for catalog in catalogs]
    schemas = [(c["catalog_name"], s) for c in catalogs for s in c["catalog_db_schemas"]]
    if depth == "db_schemas":
        return sorted(f"{catalog}.{schema['db_schema_name']}" for catalog, schema in schemas)
    tables = [(s["db_schema_name"], t) for _, s in schemas for t in s["db_schema_tables"]]
    if depth == "tables":
        return sorted(f"{schema}.{table['table_name']} {table['table_type']}" for schema, table in tables)
    return {
        f"{schema}.{table['table_name']}": [column["column_name"] for column in table["table_columns"]]
        for schema, table in tables
    }


def main(uri):
    with flightsql.connect(uri) as connection, connection.cursor() as cursor:
        info = connection.adbc_get_info()
        many = pa.RecordBatch.from_pydict({"id": [1, 3]})
        told = {
            "query": rows(cursor, "select id, name from items order by id"),
            "positional": rows(cursor, "select name from items where id = ? and name = ?", (3, "c")),
            "again": rows(cursor, "select name from items where id = ? and name = ?", (1, "a")),
            "named": rows(
                cursor,
                "select name from items where id = $id",
                pa.RecordBatch.from_pydict({"id": pa.array([1], pa.int32())}),
            ),
            "typed": parameters(cursor),
            "many": refused(lambda: cursor.executemany("select name from items where id = $id", many)),
            "rows": refused(lambda: rows(cursor, "select name from items where id = $1", many)),
            "depths": {depth: objects(connection, depth) for depth in ["catalogs", "db_schemas", "tables", "all"]},
            "table_schema": connection.adbc_get_table_schema("items").names,
            "unknown_schema": refused(lambda: connection.adbc_get_table_schema("nowhere")),
            "table_types": sorted(connection.adbc_get_table_types()),
            "info": {name: info.get(name) for name in ["vendor_name", "vendor_version"]},
            "partitions": len(cursor.adbc_execute_partitions("select id from items")[0]),
            "schema": cursor.adbc_execute_schema("select id, name from items").names,
            "bad_sql": refused(lambda: cursor.execute("selec")),
            "no_table": refused(lambda: cursor.execute("select * from nowhere")),
            "write": refused(lambda: cursor.execute("delete from items")),
            "ingested": cursor.adbc_ingest(
                "written", pa.table({"id": [7, 8], "name": ["x", None]}), mode="append"
            ),
            "not_writable": refused(
                lambda: cursor.adbc_ingest("items", pa.table({"id": [7], "name": ["x"]}), mode="append")
            ),
        }
    print(json.dumps(told))


main(sys.argv[1])
