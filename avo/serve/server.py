"""Listens at an address, and serves the pages there until it is interrupted."""

import socket
from collections.abc import Callable
from datetime import UTC, datetime

import uvicorn

from avo.config import RunConfig
from avo.errors import ServeUnavailable
from avo.evaluator.evaluators import Evaluator
from avo.lineage_db.records import Run
from avo.search.judging import Judging
from avo.serve.app import make_app
from avo.serve.reading import Reader


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address; port 0 chooses a free one. Raises ``ServeUnavailable``."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
            opened.listen()
        except OSError:
            opened.close()
            raise
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ServeUnavailable(f"cannot listen at {host}:{port}: {why}: choose another --host or --port") from None
    return opened


def serve(url: str, opened: socket.socket, token: str, ready: Callable[[], None]) -> None:
    """Serve the database at ``url`` on a bound socket; call ``ready`` once it is open. Raises the store's errors."""

    def clock() -> datetime:
        return datetime.now(UTC)

    app = make_app(Reader(url, clock), token, clock, _start_judge)
    # No log of requests: the first address of each visitor has the token.
    config = uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False, server_header=False)
    ready()
    uvicorn.Server(config).run(sockets=[opened])


def _start_judge(run: Run) -> Evaluator:
    return Judging.of(RunConfig.stored(run, {})).start()
