"""Looks everywhere for a secret: the environment, processes, descriptors, memory, homes and temporary folders.

The secret comes in two parts, so that looking for it does not put it into memory. A job for the sandbox, a script
(``python snoop.py FIRST SECOND FOLDER...``) and, with an entry below it, a candidate.
"""

import contextlib
import glob
import json
import os
import re
import sys

FILE_BYTES = 1 << 16
CHUNK_BYTES = 1 << 24


def search(first: bytes, second: bytes, folders: list[str]) -> list[str]:
    """Return the places in which the secret is found."""
    found: set[str] = set()

    def look(place: str, data: bytes) -> None:
        for match in re.finditer(re.escape(first), data):
            if data[match.end() : match.end() + len(second)] == second:
                found.add(place)

    def read(place: str, path: str) -> None:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                look(place, os.read(descriptor, FILE_BYTES))
            finally:
                os.close(descriptor)

    look("os.environ", repr(dict(os.environ)).encode())
    for name in ("environ", "cmdline", "fd/*", "cwd/*", "task/*/environ"):
        for path in glob.glob(f"/proc/[0-9]*/{name}"):
            read(f"/proc/PID/{name}", path)
    for descriptor in range(256):
        with contextlib.suppress(OSError):
            look("descriptor", os.pread(descriptor, FILE_BYTES, 0))
    for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/root", "/home", *folders):
        for path in [folder, *glob.glob(f"{folder}/*", include_hidden=True), *glob.glob(f"{folder}/*/*")]:
            if os.path.isfile(path):
                read(folder, path)
    for process in ("self", os.getppid()):
        with contextlib.suppress(OSError), open(f"/proc/{process}/maps") as maps:
            spans = [line.split()[0].split("-") for line in maps if " rw" in line]
            with open(f"/proc/{process}/mem", "rb", 0) as memory:
                for start, end in spans:
                    with contextlib.suppress(OSError, ValueError):
                        memory.seek(int(start, 16))
                        look(f"memory of {'itself' if process == 'self' else 'its parent'}",
                             memory.read(min(int(end, 16) - int(start, 16), CHUNK_BYTES)))  # fmt: skip
    return sorted(found)


def run(payload: bytes) -> bytes:
    """The job: a JSON list, the parts of the secret and a list of folders, gives a JSON list of places."""
    first, second, folders = json.loads(payload)
    return json.dumps(search(first.encode(), second.encode(), folders)).encode()


if __name__ == "__main__":
    print(json.dumps(search(os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2]), sys.argv[3:])))
