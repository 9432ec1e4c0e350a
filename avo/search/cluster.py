"""Ray's processes: started on this machine for one session, or those of a cluster that it joins."""

import contextlib
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import ray
from ray._private import services

from avo.config import LOCAL
from avo.doctor import BUSY
from avo.errors import ConfigError, RunFailed
from avo.evaluator.machine import strain
from avo.evaluator.temporary import TemporaryFolder

_log = logging.getLogger(__name__)

_START_S = 300.0
"""Longest wait for each of Ray's processes to start. By default it is half a minute, which a busy machine misses."""
_TRIES = 3
"""How often Ray is started before the run is given up, on a machine that is too busy for it."""
_LOOK_S = 5.0
"""Longest wait for Ray's head to accept a connection."""
_HERE = "auto"
"""The address of the cluster that this machine is a node of."""
_OUTSIDE = "ray://"
"""Beginning of the addresses of clusters that are reached from outside, by Ray Client."""
_ADDRESSES = "give auto, HOST:PORT or ray://HOST:PORT of a running cluster"
_RAYS = {
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ROTATION_MAX_BYTES": str(16 * 2**20),
    "RAY_ROTATION_BACKUP_COUNT": "1",
}
"""Environment of Ray's processes. They write some 50 MB of logs a day, and by default would keep 512 MB of each."""
_WAITS = ("RAY_gcs_server_port_wait_time_s", "RAY_worker_register_timeout_seconds")
"""Variables that say how many seconds Ray waits for its processes."""
_OBJECT_STORE_BYTES = 80 * 2**20
"""Bytes of Ray's object store. 75 MiB is Ray's minimum, and only sources and evaluations of a few kilobytes pass
through it.
"""


class _Strained(RunFailed):
    """Ray does not start, which time or the load of the machine explains."""


@contextmanager
def ray_running(
    address: str, *, cpus: int, gpus: int, resources: dict[str, float], tries: int = _TRIES, start_s: float = _START_S
) -> Iterator[str | None]:
    """Start Ray on this machine with these resources as long as the context lasts; for another ``address`` than
    ``LOCAL``, use the cluster there, which this process has ``joined``.

    Yields the ``HOST:PORT`` at which Ray's head can be reached from here, None where it cannot. Raises ``RunFailed``
    where Ray does not start: a start that took longer than ``start_s`` seconds, or that a busy machine failed, is tried
    again, ``tries`` times in all.
    """
    with ExitStack() as stack:
        for tried in range(1, tries + 1) if address == LOCAL else ():
            try:
                stack.enter_context(_local_ray(cpus, gpus, resources, start_s))
                break
            except _Strained as error:
                if tried == tries:
                    raise
                _log.warning("avo: %s: trying again", error)
        yield None if address.startswith(_OUTSIDE) else ray.get_runtime_context().gcs_address


@contextmanager
def joined(address: str, store_url: str) -> Iterator[None]:
    """Be a job of the cluster at ``address``, whose nodes all have AVO installed, as long as the context lasts.

    Raises ``ConfigError`` where there is no cluster, or none that the database can serve: before a run is created, so
    that none is left behind.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Ray itself would keep trying for many minutes without a message.
    if address != _HERE and not answers(address.removeprefix(_OUTSIDE)):
        raise ConfigError(f"--ray-address: nobody answers at {address}: {_ADDRESSES}")
    try:
        with _own_signals(), _environment({"RAY_gcs_server_port_wait_time_s": "1"}):
            ray.init(
                address=address,
                logging_level=logging.ERROR,
                log_to_driver=False,
                runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
            )
    except Exception as error:  # Ray has no error class for what may go wrong there
        said = " ".join(str(error).split())
        raise ConfigError(
            f"--ray-address: the cluster at {address} cannot be joined ({said}): {_ADDRESSES}, "
            "with RAY_AUTH_MODE=token and its RAY_AUTH_TOKEN in the environment"
        ) from error
    try:
        nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
        if nodes > 1 and store_url.startswith("sqlite"):
            raise ConfigError(
                f"--db: an SQLite file serves one machine, and the cluster at {address} has {nodes} nodes: "
                "use PostgreSQL, e.g. --db postgresql://USER@HOST/NAME"
            )
        yield
    finally:
        ray.shutdown()


@contextmanager
def _local_ray(cpus: int, gpus: int, resources: dict[str, float], start_s: float) -> Iterator[None]:
    """Start Ray for this process alone: on the loopback interface only, with a token and a folder of its own."""
    # Ray asks for a token by default; without this it would keep one in the home folder. It reads it once per process.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Below /tmp, whatever TMPDIR says: Ray's sockets get paths below this one, and a socket's path may have 107 bytes.
    with TemporaryFolder("run", "/tmp", watched=True) as folder:
        try:
            # Ray puts the current folder first on the workers' import path: a folder there may be named like a package
            # of ours. What judges leave behind in their temporary folder goes with this one.
            environment = {**_RAYS, **dict.fromkeys(_WAITS, f"{start_s:.0f}"), "TMPDIR": folder}
            with (
                contextlib.chdir(folder),
                _environment(environment),
                _start_failures(),
                _own_signals(),
                _deaf_to_terminals(),
                _ray_as_we_need_it(start_s),
            ):
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    num_gpus=gpus,
                    resources=resources,
                    include_dashboard=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=folder,
                )
            yield
        finally:
            ray.shutdown()


@contextmanager
def _ray_as_we_need_it(start_s: float) -> Iterator[None]:
    """Change what no option of Ray changes, as long as the context lasts.

    Ray waits ``start_s`` for its node instead of half a minute. It takes 127.0.0.1 at its word: otherwise it puts
    another address of this machine in its place, and then listens on all interfaces.
    """
    ask, resolve = services.get_node, services.resolve_ip_for_localhost

    def wait(*arguments: Any) -> Any:
        until = time.monotonic() + start_s
        while True:
            try:
                return ask(*arguments)  # type: ignore[no-untyped-call]
            except RuntimeError as error:  # the node has not registered yet
                if time.monotonic() > until:
                    raise TimeoutError(str(error)) from error
                time.sleep(0.1)

    services.get_node, services.resolve_ip_for_localhost = wait, lambda host: host
    try:
        yield
    finally:
        services.get_node, services.resolve_ip_for_localhost = ask, resolve


@contextmanager
def _own_signals() -> Iterator[None]:
    """Put back the handler of SIGTERM: Ray installs its own, which ends the process without a word."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _deaf_to_terminals() -> Iterator[None]:
    """Let no process that is started in the context be ended by SIGHUP: a terminal that is closed sends it to all of
    them, and the workers have something to finish then.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for as long as the context lasts."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


@contextmanager
def _start_failures() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Ray starts several processes and has no error class for what may go wrong there
        said = " ".join(str(error).split())
        timed_out = isinstance(error, TimeoutError) or "timed out" in said.lower()
        busy = os.getloadavg()[0] > BUSY * len(os.sched_getaffinity(0))
        raise (_Strained if timed_out or busy else RunFailed)(
            f"Ray does not start ({said}; {strain()}): end other programs, or look at avo doctor"
        ) from error


def answers(address: str) -> bool:
    """Whether somebody listens at ``HOST:PORT``."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK_S).close()
    except (OSError, ValueError):
        return False
    return True
