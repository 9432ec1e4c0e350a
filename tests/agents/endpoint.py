"""A scripted OpenAI-compatible endpoint on loopback, in a thread or as a program: ``endpoint.py SCRIPT.json``.

A script is a list of lines, one for each request, the last one for ever. A line is an object with any of: ``text``;
``calls``, a list of tool name and arguments (an object, or a text that is sent as it is); ``finish``; ``usage``
(false: none); ``status``, ``headers`` and ``body`` of another answer; ``pause_s`` before it; ``hangup``.
"""

import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Line = Mapping[str, Any]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that is killed or gives up resets its connection."""


class Endpoint:
    """Serves between ``with`` and its end; every request's body is kept."""

    def __init__(self, script: Sequence[Line | Callable[[dict[str, Any]], Line]], port: int = 0) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._ids = itertools.count()
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint._answer(self, body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "Endpoint":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self._lock:
            line = self.script[min(len(self.requests), len(self.script) - 1)]
            self.requests.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
        line = line(body) if callable(line) else line
        if "pause_s" in line:
            time.sleep(line["pause_s"])
        if line.get("hangup"):
            handler.close_connection = True
            return
        data = line["body"] if "body" in line else json.dumps(self._completion(line, body))
        handler.send_response(line.get("status", 200))
        for name, value in {"Content-Type": "application/json", **line.get("headers", {})}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data.encode())))
        handler.send_header("Connection", "close")  # no socket outlives its test, to be found open by another
        handler.end_headers()
        handler.wfile.write(data.encode())

    def _completion(self, line: Line, body: dict[str, Any]) -> dict[str, Any]:
        calls = [
            {
                "id": f"call_{next(self._ids)}",
                "type": "function",
                "function": {"name": name, "arguments": given if isinstance(given, str) else json.dumps(given)},
            }
            for name, given in line.get("calls", ())
        ]
        message = {"role": "assistant", "content": line.get("text"), **({"tool_calls": calls} if calls else {})}
        finish = line.get("finish", "tool_calls" if calls else "stop")
        completion = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        }
        usage = line.get("usage", {"prompt_tokens": 1000, "completion_tokens": 100})
        return completion | ({"usage": usage} if usage else {})


def main() -> None:
    """Serve a script until killed; the first line of output is the address."""
    with open(sys.argv[1], encoding="utf-8") as file, Endpoint(json.load(file)) as endpoint:
        print(endpoint.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
