"""A job that says why just before its result, in a server that is slow to look: imported by the server."""

import os
import time

from avo.evaluator.sandbox import forkserver

look = forkserver._take


def look_and_dawdle(fd: int, into: bytearray, most: int) -> bool:
    ended = look(fd, into, most)
    time.sleep(0.5)
    return ended


forkserver._take = look_and_dawdle


def run(payload: bytes) -> bytes:
    os.write(2, b"error: ")  # the server looks
    time.sleep(0.1)
    os.write(2, b"the reason")  # before it looks for the result
    return b"result"
