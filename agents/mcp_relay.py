"""Joins standard input and output to a socket: a script of its own that needs the standard library only.

    python -I mcp_relay.py SOCKET

A client takes this for an MCP server. All that it can do is pass on messages.
"""

import os
import socket
import sys
import threading

_BYTES = 1 << 16


def relay(path: str) -> None:
    """Pass bytes on in both directions until either side ends."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        threading.Thread(target=_outward, args=(server,), daemon=True).start()
        while chunk := server.recv(_BYTES):
            _write(chunk)


def _outward(server: socket.socket) -> None:
    while chunk := os.read(0, _BYTES):
        server.sendall(chunk)
    server.shutdown(socket.SHUT_WR)


def _write(chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    relay(sys.argv[1])
