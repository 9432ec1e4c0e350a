"""The steps of a first contact. Each notes what it finds line by line: one that is stopped has told what it had.

python -m bench.first_contact.steps STEP FOLDER SECONDS    runs one, as ``bench.first_contact`` does
"""

import contextlib
import json
import math
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec

from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.cuda import adopted
from avo.evaluator.cuda.cards import Card
from avo.evaluator.cuda.contender import COMMAND, Contender, start_worker
from avo.evaluator.cuda.libraries import LIBRARIES, release
from avo.evaluator.cuda.measured import Measured
from avo.evaluator.cuda.measuring import Audience
from avo.evaluator.cuda.protocol import TimedCase
from avo.evaluator.cuda.sequential import BLOCK
from avo.evaluator.evaluation import Evaluation, Fault, Score, Status
from avo.evaluator.judging.judge import Judge
from avo.evaluator.judging.speed import Challenge, CompiledPlan, Predicted
from avo.evaluator.measurement import Entrant, Measurement, Sample
from avo.evaluator.modules import imported
from avo.evaluator.problem import Problem
from avo.evaluator.target import Target
from avo.evaluator.targets import get_target
from avo.seeds import fitting, seed_source

CARD_FILE = "card.json"
VARIANTS = 40
PAIRS = 20
"""Pairs of processes in which a kernel is timed against itself."""
_SAMPLE_S = 0.5
_NOTING_S = 5.0
"""What is kept of a step's time for noting what a worker said that does not end."""
_SCORING_S = 25.0
"""What is kept of it for what follows when a comparison's time is over: the rounds until it is next looked at whether
they suffice, and the score in a new process.
"""
_PACKAGES = ("torch", "triton", "numpy", "msgspec", "nvidia-ml-py", "flash-attn", "flash-attn-3", "flash-attn-4")


@dataclass(frozen=True)
class Bench:
    """Where steps work, and on what."""

    folder: Path
    problem: str = "mha"
    """The problem of the kernels for ``mha``; in tests a smaller one of its kind."""
    suite: str = "quick"
    start: Callable[[], Contender] = start_worker
    until: float = math.inf
    """When the step is stopped, by ``time.monotonic``."""

    @property
    def card(self) -> Card:
        """The card, as the worker's step has noted it. Raises ``OSError`` where it has not."""
        return msgspec.json.decode((self.folder / CARD_FILE).read_bytes(), type=Card)

    @property
    def target(self) -> Target:
        """The card as a target; where it is not noted, as a worker says now."""
        try:
            return self.card.target()
        except OSError:
            return get_target("cuda")

    def note(self, step: str, **found: Any) -> None:
        """Add a line to what a step has found."""
        with (self.folder / f"{step}.jsonl").open("a") as file:
            file.write(json.dumps(found) + "\n")

    def judge(self, speed: Any) -> Judge:
        """Return a judge for the card."""
        return Judge(self.target, self.suite, speed=speed)

    def measured(self, audience: Audience | None = None) -> Measured:
        """Return what times every candidate."""
        return Measured(self.target, cascade=None, start=self.start, audience=audience)


class Both:
    """Predicts, measures and notes both."""

    def __init__(self, bench: Bench) -> None:
        self.runs: list[Mapping[str, Any]] = []
        self._predicted = Predicted(bench.target)
        self._measured = bench.measured(Audience(keep=self.runs.append))
        self.prediction: Score | Fault | None = None

    def score(
        self,
        problem: Problem,
        plans: Sequence[CompiledPlan],
        incumbent: Challenge | None,
        small: Sequence[CompiledPlan] = (),
    ) -> Score | Fault:
        """Return the measured score, see ``Speed.score``; the prediction is kept."""
        self.runs.clear()
        self.prediction = self._predicted.score(problem, plans, None)
        return self._measured.score(problem, plans, incumbent, small)

    def samples(self, entrant: str) -> Iterator[Sample]:
        """Yield the runs of the last score."""
        for row in self.runs:
            if row["part"] == "score":
                for run in row["runs"][row["warmups"] :]:
                    yield Sample(1, row["round"], entrant, row["case"], run["seconds"] * 1e6, run["wall_s"] * 1e6)


def state(bench: Bench) -> None:
    """Note the machine, its cards and what is installed."""
    found = {name: release(name) or "not installed" for name in _PACKAGES}
    names = [name for name in os.environ if name.startswith(("CUDA_", "NVIDIA_", "TRITON_"))]
    bench.note(
        "state",
        python=sys.version,
        machine=platform.platform(),
        packages=found,
        environment={name: os.environ[name] for name in names},
    )
    for words in (["nvidia-smi"], ["nvidia-smi", "-q"], ["nvidia-smi", "topo", "-m"]):
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=15)
            print(f"$ {' '.join(words)}\n{done.stdout}{done.stderr}", flush=True)
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"$ {' '.join(words)}\n{error}", flush=True)


def clocks(bench: Bench) -> None:
    """Log clocks, power and temperature until the end, for the driver's first card until a worker has told its own."""
    from avo.evaluator.cuda.nvml import Nvml

    nvml, uuid = Nvml(), None
    while True:
        if uuid is None and (bench.folder / CARD_FILE).exists():
            uuid = bench.card.uuid
            nvml = Nvml(uuid)
        bench.note("clocks", at=time.time(), card=uuid, **asdict(nvml.clocks()))
        time.sleep(_SAMPLE_S)


def worker(bench: Bench, command: Sequence[str] = COMMAND) -> None:
    """Note what a worker says first, and the card for the other steps."""
    began = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            out, error = process.communicate(b'{"begin": {}}\n', bench.until - _NOTING_S - began)
        except subprocess.TimeoutExpired:  # what it has said until then may tell why
            process.kill()
            out, error = process.communicate()
    told = {"out": out.decode(errors="replace"), "error": error.decode(errors="replace")}
    bench.note("worker", seconds=time.monotonic() - began, code=process.returncode, **told)
    last = {name: (text.strip().splitlines() or ["nothing"])[-1] for name, text in told.items()}
    try:
        card = json.loads(last["out"])["ready"]
    except (ValueError, KeyError, TypeError):
        sys.exit(f"no GPU to measure on; a worker says: {last['out']}; on standard error: {last['error']}")
    file = bench.folder / CARD_FILE
    file.with_suffix(".new").write_text(json.dumps(card))
    file.with_suffix(".new").rename(file)  # at once: the log of clocks waits for it


def doctor(bench: Bench) -> None:
    """Note what ``avo doctor`` finds of what judging needs."""
    from avo.doctor import examine_judge

    for check in examine_judge():
        bench.note("doctor", **asdict(check))


def seed(bench: Bench) -> None:
    """Judge the plain seed."""
    with bench.judge(bench.measured()) as judge:
        bench.note("seed", **judge.evaluate(Candidate(bench.problem, seed_source("mha"))).to_json())


def faults(bench: Bench) -> None:
    """Note what kernels that crash, hang, stray, stay in the cache or start early are found to be."""
    from bench.first_contact.faulty import try_all

    for found in try_all(bench.target, bench.start):
        bench.note("faults", **found)


def kernels(card: Target) -> Iterator[tuple[str, str, str]]:
    """Yield (problem, name, source) of the kernels to hold predictions against, of each problem in turn."""
    from bench.claims import made
    from bench.known import TRITON

    alike = "h100" if card.warpgroup_products else "b200" if card.tensor_memory else ""

    def of(problem: str) -> Iterator[tuple[str, str, str]]:
        for name in fitting(problem, card):
            yield problem, name, seed_source(problem, name)
        if (problem, alike) in TRITON:
            yield problem, f"the best known for {alike}", made(TRITON[problem, alike], alike)

    for both in zip_longest(of("mha"), of("fsa")):
        yield from filter(None, both)


def predicted(bench: Bench) -> None:
    """Predict and measure seeds and the best kernels known."""
    both = Both(bench)
    with bench.judge(both) as judge:
        for problem, name, source in kernels(bench.target):
            candidate = Candidate(bench.problem if problem == "mha" else problem, source)
            evaluation = judge.evaluate(candidate)
            prediction = {} if both.prediction is None else asdict(both.prediction)
            for case in prediction.get("cases", ()):
                case.pop("draws", None)
            bench.note("predicted", problem=problem, kernel=name, measured=evaluation.to_json(), predicted=prediction)
            keep(bench, candidate, both)


def do_bench(bench: Bench) -> None:
    """Time the plain seed as Triton's own benchmark does, called from Python."""
    import torch
    import triton

    file = bench.folder / "do_bench_seed.py"
    file.write_text(seed_source("mha"))
    module = imported(file)
    problem = get_problem(bench.problem)
    for case in get_suite(problem, bench.suite):
        call = problem.call(case)
        with torch.device("cuda"):
            made = problem.make_inputs(case, 1)
        tensors = {}
        for spec in call.tensors:
            flat = made.get(spec.name)
            flat = torch.empty(spec.size, dtype=getattr(torch, spec.dtype), device="cuda") if flat is None else flat
            tensors[spec.name] = flat.to("cuda").as_strided(spec.shape, spec.strides)
        run = partial(getattr(module, problem.entry), *tensors.values(), **dict(call.scalars))
        low, median, high = triton.testing.do_bench(run, quantiles=[0.25, 0.5, 0.75])
        flops = problem.flops(case)
        bench.note(
            "do_bench", case=case.name, us=[1e3 * each for each in (low, median, high)], tflops=flops / median / 1e9
        )


def same(bench: Bench) -> None:
    """Judge the plain seed against itself, in ``PAIRS`` pairs of processes where there is time."""
    candidate = Candidate(bench.problem, seed_source("mha"))
    audience = Audience(lambda progress: print(progress.words, flush=True), lambda row: bench.note("same_runs", **row))
    speed = bench.measured(audience)
    speed.until, speed.least_rounds = bench.until - _SCORING_S, PAIRS * BLOCK
    with bench.judge(speed) as judge:
        evaluation = judge.evaluate(candidate, Incumbent(candidate, 0.05))
    bench.note("same", **evaluation.to_json())
    if evaluation.score is not None and (found := evaluation.score.comparison) and found.between is not None:
        pairs = len(found.log_ratios) // BLOCK
        print(f"{pairs} pairs of processes differ by {found.between:.3%} (deviation) beyond the noise of their rounds")


def baselines(bench: Bench) -> None:
    """Time libraries."""
    from avo.evaluator.cuda.baselines import measure

    problem = get_problem(bench.problem)
    cases = get_suite(problem, bench.suite)
    for library in LIBRARIES:
        bench.note("baselines", **asdict(measure(bench.start, problem, cases, library, random.Random())))


def canary(bench: Bench) -> None:
    """Have a wrong and a slow variant of the seed judged, as a run does before it trusts its judge."""
    from avo.search.canary import examine

    candidate = Candidate(bench.problem, seed_source("mha"))
    with bench.judge(bench.measured()) as judge:

        def evaluate(candidate: Candidate, incumbent: Incumbent | None = None) -> Evaluation:
            found = judge.evaluate(candidate, incumbent)
            bench.note("canary", evaluation=found.to_json())
            return found

        evaluation = evaluate(candidate)
        assert evaluation.score is not None, evaluation.message
        bench.note("canary", found=examine(evaluate, candidate, evaluation.score, 0.05))


def edited() -> Iterator[tuple[str, str]]:
    """Yield (what it is, source) of variants of the plain seed in tiles, warps and stages, in the same random order."""
    plain = seed_source("mha")
    shapes = [
        (m, n, warps, stages) for m in (64, 128) for n in (32, 64, 128) for warps in (4, 8) for stages in (1, 2, 3, 4)
    ]
    for m, n, warps, stages in random.Random(1).sample(shapes, VARIANTS):
        source = plain.replace("block_m, block_n = 64, 64", f"block_m, block_n = {m}, {n}")
        source = source.replace("num_warps=4", f"num_warps={warps}").replace("num_stages=1", f"num_stages={stages}")
        yield f"tiles of {m} x {n}, {warps} warps, {stages} stages", source


def variants(bench: Bench) -> None:
    """Measure variants of the plain seed."""
    both = Both(bench)
    with bench.judge(both) as judge:
        for what, source in edited():
            candidate = Candidate(bench.problem, source)
            evaluation = judge.evaluate(candidate)
            bench.note("variants", variant=what, status=evaluation.status, message=evaluation.message)
            keep(bench, candidate, both)


def keep(bench: Bench, candidate: Candidate, both: Both) -> None:
    """Add a kernel's times, if it has any, to a file that ``avo calibrate`` reads: one for each problem."""
    samples = tuple(both.samples(candidate.digest))
    if not samples or not isinstance(both.prediction, Score):
        return
    file, card = bench.folder / f"measured-{candidate.problem}.json", bench.card
    if file.exists():
        found = Measurement.from_json(file.read_bytes())
    else:
        versions = ", ".join(f"{name} {release(name)}" for name in ("torch", "triton"))
        problem = get_problem(candidate.problem)
        cases = tuple(TimedCase.of(problem, case, card).measured for case in get_suite(problem, bench.suite))
        found = Measurement(
            "", "first contact", candidate.problem, bench.suite, card.nearest().name, candidate.digest, asdict(card),
            {"versions": versions}, datetime.now(UTC).isoformat(timespec="seconds"), 0.0, cases, (), (),
        )  # fmt: skip
    if candidate.digest not in {each.name for each in found.entrants}:
        entrant = Entrant(
            candidate.digest, Status.CORRECT, attempt=len(found.entrants) + 1, digest=candidate.digest,
            source=candidate.source, predicted=both.prediction.ranges,
        )  # fmt: skip
        found = replace(found, entrants=(*found.entrants, entrant), samples=(*found.samples, *samples))
        file.write_text(found.to_json())


STEPS: dict[str, Callable[[Bench], None]] = {
    each.__name__: each
    for each in (state, clocks, worker, doctor, seed, faults, predicted, do_bench, same, baselines, canary, variants)
}


def main(arguments: Sequence[str], **settings: Any) -> None:
    """Run one step."""
    name, folder, limit_s = arguments
    bench = Bench(Path(folder), until=time.monotonic() + float(limit_s), **settings)
    with contextlib.suppress(OSError):
        adopted(bench.card)
    STEPS[name](bench)


if __name__ == "__main__":
    main(sys.argv[1:])
