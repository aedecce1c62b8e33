"""Uses a sidewing as an agent does, with the official SDK, and prints what it saw as JSON.

Usage: agent.py legacy|auto URL [KEY]
       agent.py legacy|auto -- COMMAND [ARG...]

`legacy` opens a session by `initialize`; `auto` asks `server/discover` first, as the SDK does by default.
"""

import asyncio
import contextlib
import json
import os
import sys

from mcp import Client, ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

# How long datasets may take to become ready.
READY_SECONDS = 30

# What is on this machine is asked directly.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"


def transport(stack, where):
    if where[0] == "--":
        return stdio_client(StdioServerParameters(command=where[1], args=where[2:]))
    url, *key = where
    client = create_mcp_http_client(headers={"X-API-Key": key[0]} if key else None)
    stack.push_async_exit(client)
    return streamable_http_client(url, http_client=client)


@contextlib.asynccontextmanager
async def connected(mode, where):
    """A session by hand in one era, the SDK's own client in the other."""
    async with contextlib.AsyncExitStack() as stack:
        if mode == "legacy":
            read, write = (await stack.enter_async_context(transport(stack, where)))[:2]
            session = await stack.enter_async_context(ClientSession(read, write))
            await session.initialize()
            yield session
        else:
            yield await stack.enter_async_context(Client(transport(stack, where)))


async def call(client, name, **arguments):
    result = await client.call_tool(name, arguments)
    return {
        "is_error": bool(result.is_error),
        "text": result.content[0].text,
        "structured": result.structured_content,
    }


async def until_ready(client):
    """A server that has just been started is still reaching its upstreams."""
    while not (await call(client, "get_readiness"))["structured"]["ready"]:
        await asyncio.sleep(0.1)


async def main():
    mode, *where = sys.argv[1:]
    async with connected(mode, where) as client:
        await asyncio.wait_for(until_ready(client), READY_SECONDS)
        tools = (await client.list_tools()).tools
        resources = (await client.list_resources()).resources
        templates = (await client.list_resource_templates()).resource_templates
        read = (await client.read_resource(resources[0].uri)).contents[0]
        saw = {
            "version": client.protocol_version,
            "server": client.server_info.name,
            "instructions": client.instructions,
            "tools": {tool.name: tool.annotations.read_only_hint for tool in tools},
            "resources": [resource.uri for resource in resources],
            "templates": [template.uri_template for template in templates],
            "resource": json.loads(read.text),
            "sql": await call(client, "sql", query="SELECT id, name FROM items ORDER BY id LIMIT 2"),
            "digits": await call(client, "sql", query="SELECT price FROM items WHERE id = 0"),
            "cut": await call(client, "sql", query="SELECT id FROM items"),
            "limited": await call(client, "sql", query="SELECT id FROM items", limit=3),
            "unknown": await call(client, "sql", query="SELECT * FROM nowhere"),
            "write": await call(client, "sql", query="DROP TABLE items"),
            "datasets": await call(client, "list_datasets"),
            "schema": await call(client, "table_schema", tables=["items"]),
            "sample": await call(client, "sample_data", table="items"),
            "ready": await call(client, "get_readiness"),
        }
    json.dump(saw, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
