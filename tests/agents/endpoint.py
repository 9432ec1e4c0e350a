"""A scripted OpenAI-compatible endpoint on loopback, in a thread or as a program: ``endpoint.py SCRIPT.json``.

It has chat completions, the Responses API, or both, streamed where a request asks for that.

A script is a list of lines, one for each request, the last one for ever. A line is an object with any of: ``text``;
``calls``, a list of tool name and arguments (an object, or a text that is sent as it is); ``thought``, fields of a chat
message or reasoning items of a response; ``finish``; ``usage`` (false: none); ``status``, ``headers`` and ``body`` of
another answer; ``whole``, not streamed; ``events``, the data of a stream as it is; ``last``, how many events of the
stream are sent; ``pause_s`` before the answer; ``stall_s`` after its first event, at most until the endpoint is closed;
``hangup``. A test may also give ``stall``, which is called there.
"""

import itertools
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from avo.agents.probe import ASKED

Line = Mapping[str, Any]
_PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that is killed or gives up resets its connection."""


class Endpoint:
    """Serves between ``with`` and its end; every request's body is kept, except those for an API that it has not."""

    def __init__(
        self,
        script: Sequence[Line | Callable[[dict[str, Any]], Line]],
        port: int = 0,
        apis: Sequence[str] = ("chat",),
        probed: Sequence[Line] = ({"calls": [["ready", {}]]},),
    ) -> None:
        """``probed`` are the answers to requests before a run, which are no part of the script."""
        self.script, self._probed = script, probed
        self.probes = 0
        self.apis = [_PATHS[api] for api in apis]
        self.asked: list[str] = []
        """Path of every request."""
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._ids = itertools.count()
        self._lock = threading.Lock()
        self._over = threading.Event()
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
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        self.asked.append(handler.path)
        if handler.path not in self.apis:
            _send(handler, {"status": 404}, '{"detail": "Not Found"}')
            return
        with self._lock:
            if ASKED in json.dumps(body):
                line = self._probed[min(self.probes, len(self._probed) - 1)]
                self.probes += 1
            else:
                line = self.script[min(len(self.requests), len(self.script) - 1)]
                self.requests.append(body)
                self.headers.append({name.lower(): value for name, value in handler.headers.items()})
        line = line(body) if callable(line) else line
        if "pause_s" in line:
            self._over.wait(line["pause_s"])
        if line.get("hangup"):
            handler.close_connection = True
            return
        of_chat = handler.path == _PATHS["chat"]
        if "body" in line:
            _send(handler, line, line["body"])
            return
        ids = [f"call_{next(self._ids)}" for _ in line.get("calls", ())]
        whole = _completion(line, ids) if of_chat else _response(line, ids)
        if not body.get("stream") or line.get("whole"):
            _send(handler, line, json.dumps(whole))
            return
        made = _chunks(whole, "stream_options" in body) if of_chat else _events(whole)
        events = line["events"] if "events" in line else [*made, "[DONE]"] if of_chat else list(made)
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for number, event in enumerate(events[: line.get("last")]):
            text = event if isinstance(event, str) else json.dumps(event)
            handler.wfile.write(f"data: {text}\r\n\r\n".encode())
            handler.wfile.flush()
            if number == 0:
                self._over.wait(line.get("stall_s", 0))
                line.get("stall", lambda: None)()
        handler.close_connection = True


def _send(handler: BaseHTTPRequestHandler, line: Line, data: str) -> None:
    handler.send_response(line.get("status", 200))
    for name, value in {"Content-Type": "application/json", **line.get("headers", {})}.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data.encode())))
    handler.send_header("Connection", "close")  # no socket outlives its test, to be found open by another
    handler.end_headers()
    handler.wfile.write(data.encode())


def _arguments(given: Any) -> str:
    return given if isinstance(given, str) else json.dumps(given)


def _completion(line: Line, ids: Sequence[str]) -> dict[str, Any]:
    calls = [
        {"id": id_, "type": "function", "function": {"name": name, "arguments": _arguments(given)}}
        for id_, (name, given) in zip(ids, line.get("calls", ()), strict=True)
    ]
    message = {"role": "assistant", "content": line.get("text"), **line.get("thought", {})}
    finish = line.get("finish", "tool_calls" if calls else "stop")
    message |= {"tool_calls": calls} if calls else {}
    usage = line.get("usage", {"prompt_tokens": 1000, "completion_tokens": 100})
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        **({"usage": usage} if usage else {}),
    }


def _chunks(whole: Mapping[str, Any], counts: bool) -> Iterator[dict[str, Any]]:
    """Yield a completion in pieces: texts and arguments in halves."""
    (choice,) = whole["choices"]
    message = choice["message"]
    calls = message.pop("tool_calls", [])

    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    del message["role"]
    for name, value in message.items():
        halves = (value[: len(value) // 2], value[len(value) // 2 :]) if isinstance(value, str) else (value,)
        for half in halves:
            yield chunk({name: half})
    for number, call in enumerate(calls):
        arguments = call["function"]["arguments"]
        half = len(arguments) // 2
        yield chunk({"tool_calls": [{**call, "index": number, "function": {**call["function"], "arguments": ""}}]})
        for part in (arguments[:half], arguments[half:]):
            yield chunk({"tool_calls": [{"index": number, "function": {"arguments": part}}]})
    yield chunk({}, choice["finish_reason"])
    if counts:
        yield {"object": "chat.completion.chunk", "choices": [], "usage": whole.get("usage")}


def _response(line: Line, ids: Sequence[str]) -> dict[str, Any]:
    output = [{"type": "reasoning", "status": "completed", **item} for item in line.get("thought", ())]
    if text := line.get("text"):
        output.append({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]})
    output += [
        {"type": "function_call", "id": f"fc_{id_}", "call_id": id_, "name": name, "arguments": _arguments(given)}
        for id_, (name, given) in zip(ids, line.get("calls", ()), strict=True)
    ]
    reason = line.get("finish")
    usage = line.get("usage", {"input_tokens": 1000, "output_tokens": 100})
    return {
        "object": "response",
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        **({"usage": usage} if usage else {}),
    }


def _events(whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events of a response, whose last one does not repeat the output."""
    yield {"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}
    for number, item in enumerate(whole["output"]):
        yield {"type": "response.output_item.added", "output_index": number, "item": {}}
        if "arguments" in item:
            delta = {"type": "response.function_call_arguments.delta", "output_index": number}
            yield {**delta, "delta": item["arguments"]}
        yield {"type": "response.output_item.done", "output_index": number, "item": item}
    yield {"type": f"response.{whole['status']}", "response": {**whole, "output": []}}


def main() -> None:
    """Serve a script until killed; the first line of output is the address."""
    with open(sys.argv[1], encoding="utf-8") as file, Endpoint(json.load(file)) as endpoint:
        print(endpoint.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
