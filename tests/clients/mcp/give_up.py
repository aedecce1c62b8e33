"""Asks a query that is never answered, gives it up, and prints whether the server still answers.

Usage: give_up.py legacy|auto URL SQL
"""

import asyncio
import json
import sys

import anyio
from agent import connected

# Long enough for the query to be under way on a busy machine.
PATIENCE_SECONDS = 3


async def main():
    mode, url, sql = sys.argv[1:]
    async with connected(mode, [url]) as client:
        await client.list_tools()
        with anyio.move_on_after(PATIENCE_SECONDS) as waiting:
            await client.call_tool("sql", {"query": sql})
        tools = (await client.list_tools()).tools
        json.dump({"gave_up": waiting.cancelled_caught, "tools": len(tools)}, sys.stdout)
        sys.stdout.flush()
        # The session outlives the query: what ends it is the cancellation, not the end of everything.
        await asyncio.sleep(PATIENCE_SECONDS)
        await client.list_tools()


if __name__ == "__main__":
    asyncio.run(main())
