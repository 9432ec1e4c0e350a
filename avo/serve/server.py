"""Listens at an address, and serves the pages there until it is interrupted."""

import socket
from collections.abc import Callable
from datetime import UTC, datetime

import uvicorn

from avo.config import RunConfig
from avo.errors import ConfigError, ServeUnavailable
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

    app = make_app(Reader(url, clock), token, clock, start_judge)
    # No log of requests: the first address of each visitor has the token.
    config = uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False, server_header=False)
    ready()
    uvicorn.Server(config).run(sockets=[opened])


def start_judge(run: Run) -> Evaluator:
    """Start a judge that explains kernels of a run on this machine; raise ``ConfigError`` for a run whose own judges
    are started by a command, or measure: visitors must not start what a database names, nor take a card.
    """
    config = RunConfig.stored(run, {})
    if config.evaluator_command is not None or config.worker_prefix is not None or config.measured:
        raise ConfigError(
            f"run {run.name!r} is judged by a command or on a card, and this page starts neither: "
            f"avo profile {run.name} does, on a machine that has them"
        )
    return Judging.of(config).start()
