"""Drives a run on two Ray nodes, processes of this machine, and kills one: ``nodes.py POSTGRESQL_URL SQLITE_FILE``.

Prints ``refused: WORDS`` for the SQLite file, then the run's state, then how many nodes judged before and after.
"""

import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

FOLDER = tempfile.mkdtemp(prefix="avo-", dir="/tmp")
Path(FOLDER, "ray").mkdir()
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_TMPDIR": FOLDER,
    "RAY_USAGE_STATS_ENABLED": "0",
}

import ray  # noqa: E402
from fakes import Climber, judge, make_run  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from avo.config import RunConfig  # noqa: E402
from avo.errors import ConfigError  # noqa: E402
from avo.evaluator.evaluators import AnyRequest, EvaluateRequest  # noqa: E402
from avo.evaluator.fake import FakeEvaluator  # noqa: E402
from avo.lineage_db.store import Store  # noqa: E402
from avo.search.cluster import joined  # noqa: E402
from avo.search.run import RunSession, Stop  # noqa: E402
from avo.search.workers import hire  # noqa: E402

ATTEMPTS = 10
KILLED_AT = 4


class Located(FakeEvaluator):
    """An evaluator that writes down on which node and in which process it judges.

    After ``KILLED_AT`` verdicts it waits until the other node is gone: who judged what is then left to no clock.
    """

    def __init__(self, log: Path, gone: Path) -> None:
        super().__init__(judge)
        self.log = log
        self.gone = gone

    def ask(self, request: AnyRequest) -> Any:
        """Return the verdict."""
        if isinstance(request, EvaluateRequest):
            with self.log.open("a") as file:
                file.write(f"{ray.get_runtime_context().get_node_id()} {os.getpid()}\n")
            while len(judged(self.log)) > KILLED_AT and not self.gone.exists():
                time.sleep(0.05)
        return super().ask(request)


def judged(log: Path) -> list[tuple[str, int]]:
    """Return the node and the process of each candidate that was judged or is."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(node, int(process)) for node, process in map(str.split, lines)]


def main(url: str, file: str) -> None:
    """Do the run."""
    log, gone = Path(FOLDER, "log"), Path(FOLDER, "gone")
    small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    quick = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = {"num_cpus": 1, "_system_config": quick, **small}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    other = cluster.add_node(num_cpus=1, **small)
    config = RunConfig(workers=3, evaluators=2, max_attempts=ATTEMPTS, ray_address=cluster.address)
    try:
        with joined(cluster.address, f"sqlite:///{file}"):
            pass
    except ConfigError as error:
        print(f"refused: {error}", flush=True)

    with Store.open(url) as store, joined(cluster.address, url):
        run = make_run(store, config)

        def kill() -> None:
            while len(judged(log)) <= KILLED_AT or len({node for node, _ in judged(log)}) < 2:
                time.sleep(0.05)
            lost = {process for node, process in judged(log) if node == other.node_id}
            cluster.remove_node(other, allow_graceful=False)
            for process in lost:  # a lost machine takes all its processes with it, Ray's node only Ray's
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            while sum(node["Alive"] for node in ray.nodes()) > 1:
                time.sleep(0.05)
            gone.write_text(str(len(judged(log))))

        killer = Thread(target=kill)
        killer.start()
        evaluator = partial(Located, log, gone)
        crew = partial(hire, store.url, run.name, config, make_operator=Climber, make_evaluator=evaluator)
        run = RunSession(
            store, run, config, deadline=None, hire=crew, stop=Stop(), say=partial(print, flush=True)
        ).drive()
        killer.join()
    print(run.state)
    nodes, before = [node for node, _ in judged(log)], int(gone.read_text())
    print(len(set(nodes[:before])), len(set(nodes[before:])), flush=True)
    cluster.shutdown()
    shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
