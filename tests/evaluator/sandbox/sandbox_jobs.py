"""Jobs for the sandbox's tests: run the payload as Python and give back what it calls ``result``."""

from avo.evaluator.sandbox import patience

patience.MOST = 1000  # in the server: what works on a busy machine takes many times the idle seconds of these tests


def run(payload: bytes) -> bytes:
    names = {"result": b""}
    exec(payload.decode(), names)
    return bytes(names["result"])
