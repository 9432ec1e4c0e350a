"""Serves the tools of a step over the Model Context Protocol. The only module that imports ``mcp``."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import anyio
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from avo.agents.served import MCP_OPERATOR
from avo.agents.tools.arguments import READ_ONLY

TASK = "task"
"""The prompt that has the whole task."""


class Session(Protocol):
    """What an agent works with."""

    @property
    def tools(self) -> Sequence[dict[str, Any]]:
        """The tools, as chat completions take them."""
        ...

    @property
    def instructions(self) -> str:
        """What an agent is told about the tools when it connects."""
        ...

    def task(self) -> str:
        """Return what the run's own agent is told."""
        ...

    def call(self, name: str, arguments: str) -> "Future[tuple[str, ...]]":
        """Call a tool; ``arguments`` is JSON. The last text of the result is what the tool says."""
        ...


def serve(session: Session) -> None:
    """Serve on standard input and output until the client closes them."""
    asyncio.run(_serve(session))


@contextlib.contextmanager
def listening(session: Session, path: Path) -> Iterator[None]:
    """Serve all who connect to the socket ``path``, which is made, for as long as the context lasts."""
    connections: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            with contextlib.suppress(OSError):  # it is shut down
                while True:
                    connections.append(listener.accept()[0])
                    Thread(target=_converse, args=(session, connections[-1]), daemon=True).start()

        Thread(target=accept, daemon=True).start()
        try:
            yield
        finally:
            for each in (listener, *connections):
                with contextlib.suppress(OSError):  # the other side was first
                    each.shutdown(socket.SHUT_RDWR)


def _converse(session: Session, connection: socket.socket) -> None:
    with (
        connection,
        connection.makefile("r", encoding="utf-8", errors="replace") as asked,
        connection.makefile("w", encoding="utf-8") as said,
        contextlib.suppress(OSError, ExceptionGroup),  # the other side is gone
    ):
        asyncio.run(_serve(session, anyio.wrap_file(asked), anyio.wrap_file(said)))


async def _serve(
    session: Session, asked: anyio.AsyncFile[str] | None = None, said: anyio.AsyncFile[str] | None = None
) -> None:
    async with stdio_server(asked, said) as (read, write):
        server = _server(session)
        await server.run(read, write, server.create_initialization_options())


def _server(session: Session) -> Server[Any]:
    async def list_tools(context: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        described = [spec["function"] for spec in session.tools]
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=each["name"],
                    description=each["description"],
                    input_schema=each["parameters"],
                    # A client that nobody attends refuses what may destroy something or reach outside. A call that is
                    # no mere reading adds to the run's record.
                    annotations=types.ToolAnnotations(
                        read_only_hint=each["name"] in READ_ONLY, destructive_hint=False, open_world_hint=False
                    ),
                )
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
