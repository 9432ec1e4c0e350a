"""Jobs for the sandbox's tests: run the payload as Python and give back what it calls ``result``."""


def run(payload: bytes) -> bytes:
    names = {"result": b""}
    exec(payload.decode(), names)
    return bytes(names["result"])
