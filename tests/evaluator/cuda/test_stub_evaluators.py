"""Whole evaluators on the stub card: each has a card of its own, in a run's cluster too, and judges on it."""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from triton import knobs
from triton.backends.nvidia.compiler import get_ptxas

from avo.config import RunConfig
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Status
from avo.evaluator.serving.process import ProcessEvaluator
from avo.evaluator.target import Target
from avo.search import judging, workers
from avo.search.workers import hire
from avo.seeds import seed_source
from tests.avo.search.test_workers import PATIENCE_S, Waits

pytestmark = pytest.mark.long
WALL_S = 3000.0
TINY = str(Path(__file__).parent / "stub_card" / "tiny.py")


@pytest.fixture
def command(libcuda: Path) -> str:
    """Starts an evaluator on a stub card that no other test on this machine has."""
    paths = [f"{name}={libcuda.parent}" for name in ("LD_LIBRARY_PATH", "TRITON_LIBCUDA_PATH")]
    settings = (*paths, "NVML_STUB_REASONS=4", f"STUB_UUID={os.getpid()}")
    return " ".join(("env", *settings, sys.executable, "-m", "tests.evaluator.cuda.stub_card.evaluator"))


def test_two_evaluators_judge_at_once_each_on_its_card_and_for_its_driver(command: str, tmp_path: Path) -> None:
    candidate = Candidate(TINY, seed_source("mha"))
    commands = (command, command.replace("env ", "env STUB_CUDA=12080 ", 1))
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        judges = []
        for card, each in enumerate(commands):
            options = ("--device", str(card), "--clock", "burst", "--trace", str(tmp_path / str(card)))
            judges.append(ProcessEvaluator("cuda", "quick", WALL_S, command=each, options=options))
            stack.callback(judges[-1].close)
        for card, found in enumerate(pool.map(lambda judge: judge.evaluate(candidate), judges)):
            assert found.status is Status.CORRECT, found.message
            assert found.score is not None
            tool = (get_ptxas(90), knobs.nvidia.ptxas)[card]
            assert f"ptxas {tool.version}; burst clock; SM clock 1600 to 1600 MHz, " in found.score.conditions
            evaluation = json.loads((tmp_path / str(card)).read_text().splitlines()[0])
            assert evaluation["card"]["uuid"] == f"{card:08d}-0000-0000-0000-{os.getpid():012d}"


class OnAStub(ProcessEvaluator):
    """Says its card when as many as there are cards have one."""

    def __init__(self, folder: Path, command: str) -> None:
        super().__init__("cuda", "quick", WALL_S, command=command)
        self._folder = folder

    @property
    def target(self) -> Target:
        found = super().target
        (self._folder / found.product).touch()
        while len(list(self._folder.iterdir())) < 2:
            time.sleep(0.01)
        return found


def test_evaluators_of_a_run_have_the_cards_that_ray_gives_them(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))  # where Ray's workers find these tests
    monkeypatch.setattr(workers, "OperatorWorker", Waits)
    make: Any = partial(OnAStub, tmp_path, command)
    config = judging.on_gpus(RunConfig(target="cuda", workers=1, evaluators=2), lambda: 2)
    with hire("sqlite://", "run", config, make_evaluator=make) as crew:
        crew.start(0, False)
        (report,) = crew.wait(PATIENCE_S)
    assert report.trouble == "cuda"
    assert {each.name for each in tmp_path.iterdir()} == {"Stub H100", "Stub H100 1"}
