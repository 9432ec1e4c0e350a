"""A program that works as the operator: a real client of the protocol that edits a file, evaluates it and submits.

python program_client.py mcp.json KERNEL SPEED
"""

import asyncio
import json
import sys
from pathlib import Path

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.agents.world import WHY


async def work(config: str, kernel: str, speed: str) -> None:
    """Submit a kernel of this speed."""
    server = StdioServerParameters(**json.loads(Path(config).read_text())["mcpServers"]["avo"])
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        hello = await session.initialize()
        tools = (await session.list_tools()).tools
        only_read = {tool.name: tool.annotations and tool.annotations.read_only_hint for tool in tools}
        hints = {(tool.annotations.destructive_hint, tool.annotations.open_world_hint) for tool in tools}
        paths = [tool.name for tool in tools if "path" in tool.input_schema["properties"]]
        said = {"instructions": hello.instructions, "only_read": only_read, "hints": list(hints), "paths": paths}
        print(json.dumps(said))
        Path(kernel).write_text(f"tflops = {speed}")
        checked = await session.call_tool("check", {"path": kernel})
        refused = await session.call_tool("evaluate", {"path": "/etc/passwd", **WHY})
        judged = await session.call_tool("evaluate", {"path": kernel, **WHY})
        for result in (checked, refused, judged):
            print(json.dumps([result.is_error, result.content[0].text]))
        over = await session.call_tool("submit", {"attempt": 2, "change": "more", "seen": "+20%"})
        print(json.dumps([over.is_error, over.content[0].text]))
    Path("usage.json").write_text('{"model": "some-model", "input_tokens": 1000, "output_tokens": 10, "usd": 0.25}')


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
