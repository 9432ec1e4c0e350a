"""``avo serve``: the runs of a database as a page for a team."""

import re
import secrets
import socket
from typing import Annotated

import typer

from avo.cli.common import DbOption, fail
from avo.cli.database import database_url

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")
_EVERYWHERE = ("0.0.0.0", "::")


def serve(
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Address to listen at. 0.0.0.0: every interface, in plain HTTP.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="0: a free one.")] = 8765,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar="AVO_SERVE_TOKEN",
            show_envvar=False,
            help="What visitors need, 16 characters or more. Default: $AVO_SERVE_TOKEN, else a new one at each start.",
        ),
    ] = None,
    db: DbOption = None,
) -> None:
    """Serve all runs as a page in the browser: live, read-only, for those who have the address with its token.

    The page shows runs, trajectories, cost, workers, attempts with diffs and profiles, comparisons, and what
    cards measured. It listens on this machine alone unless --host says otherwise; ssh -L or a proxy with TLS reach it.

    Example: avo serve --db postgresql://avo@db/avo
    """
    from importlib.util import find_spec

    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        fail("avo serve needs packages that are not installed: pip install 'avo-kernels[serve]'")
    if token is not None and not _TOKEN.fullmatch(token):
        fail("--token: give 16 to 200 letters, digits, - or _, or leave it out for a new one")
    from avo.serve.server import listen
    from avo.serve.server import serve as answer

    secret = token or secrets.token_urlsafe(24)
    with listen(host, port) as opened:
        name = socket.gethostname() if host in _EVERYWHERE else f"[{host}]" if ":" in host else host
        address = f"http://{name}:{opened.getsockname()[1]}/?token={secret}"
        answer(database_url(db), opened, secret, lambda: print(address, flush=True))
