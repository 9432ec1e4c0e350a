"""Serves an agent's session over the Model Context Protocol. The only module that imports ``mcp``."""

import asyncio
import json
from importlib.metadata import version
from typing import Any

from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from agents.served import MCP_OPERATOR
from avo.search.agent_session import AgentSession

TASK = "task"
"""The prompt that has the whole task."""


def serve(session: AgentSession) -> None:
    """Serve until the client closes standard input."""
    asyncio.run(_serve(session))


async def _serve(session: AgentSession) -> None:
    async with stdio_server() as (read, write):
        server = _server(session)
        await server.run(read, write, server.create_initialization_options())


def _server(session: AgentSession) -> Server[Any]:
    async def list_tools(context: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        described = [spec["function"] for spec in session.tools]
        return types.ListToolsResult(
            tools=[
                types.Tool(name=each["name"], description=each["description"], input_schema=each["parameters"])
                for each in described
            ]
        )

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        said = await asyncio.wrap_future(session.call(params.name, json.dumps(params.arguments or {})))
        return types.CallToolResult(
            content=[types.TextContent(text=text) for text in said], is_error=said[-1].startswith("error: ")
        )

    async def list_prompts(context: Any, params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=[types.Prompt(name=TASK, description=session.instructions)])

    async def get_prompt(context: Any, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        if params.name != TASK:
            raise ValueError(f"there is no prompt {params.name!r}: get {TASK}")
        content = types.TextContent(text=await asyncio.to_thread(session.task))
        return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=content)])

    return Server(
        f"avo-{MCP_OPERATOR}",
        version=version("avo-kernels"),
        instructions=session.instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
    )
