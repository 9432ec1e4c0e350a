"""The verdict on the seeds of every problem and of settings that cover all parts, as before acceptance, and its cost.

    python -m bench.verdicts [--targets h100 b200] [--problems decode ...] [--out verdicts.jsonl]
    python -m bench.verdicts --write
    python -m bench.verdicts --compare hopper tuned [--times 6]
    python -m bench.verdicts --where mha/tuned mha/hopper decode/split mha_backward/plain

Each verdict is one line of the file, which a later call continues: a seed is judged again only after it has changed.
Processor time is that of a new judge and its jobs, with all that only a judge's first verdict costs. --write judges
nothing: it puts the table of what the file has into docs/benchmarks.md. --compare judges two seeds of mha and gqa for
h100 in turns, and prints how many times as much the first takes, in the mean. --where judges seeds for h100 once, and
once closely, and prints what takes the time.
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from avo.evaluator.candidate import Candidate
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.targets import get_target
from avo.seeds import fitting, seed_source
from bench.tables import put

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
TARGETS = ("h100", "b200", "a100", "rtx5090")
"""The cards of the table; the first two are judged for by default."""

SETTINGS = (
    "mha-d64-fp16", "gqa-d96", "mha-d256", "mha-d192x128", "gqa-h64x8-d64-w128-global-sinks-8192x1",
    "gqa-h8x4-d256-w4096-global-c50-8192x1", "mha-d512", "decode-c50", "decode-d512",
    "gqa-packed", "gqa-h64x8-d64-w128-global-sinks-packed-4096x2",
    "mha_backward-d64", "mha_backward-d192x128", "gqa_backward-packed",
    "gqa_backward-h64x8-d64-w128-global-sinks-8192x1",
    "gqa_backward-h64x8-d64-w128-global-sinks-packed-4096x2",
    "decode-d64-fp16", "decode-d192x128", "decode-h64x8-d64-w128-global-sinks-32768x1",
    "fsa-d64-fp16-sinks-packed", "fsa_backward-sinks-packed", "fsa-h64x4-d192x128-8192x1", "fsa_backward-d192x128",
    "fsa-h64x4-b128x16-local-8192x1", "fsa_backward-local",
)  # fmt: skip
"""Settings in which each part of a setting occurs with each kind of problem that it changes the function of."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one seed."""

    problem: str
    seed: str
    digest: str
    """Digest of the candidate: a seed that has changed since is another one."""
    target: str
    closely: bool
    status: str
    message: str
    processor_s: float


def judged(problem: str, seed: str, target: str, closely: bool) -> Verdict:
    """Judge a seed on the suite ``quick``, ``closely`` as before acceptance. Call it in a process of its own."""
    import torch

    from avo.evaluator.evaluators import EvaluateRequest, VerifyRequest
    from avo.evaluator.judging.judge import Judge
    from avo.evaluator.serving.memory import collect_seldom, keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    collect_seldom()
    started = time.process_time()
    candidate = Candidate(problem, seed_source(problem, seed))
    with Judge(get_target(target), "quick") as judge:
        verdict = judge.ask(VerifyRequest(candidate, None) if closely else EvaluateRequest(candidate, None))
    jobs = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = time.process_time() - started + jobs.ru_utime + jobs.ru_stime
    return Verdict(problem, seed, candidate.digest, target, closely, verdict.status, verdict.message, round(spent, 1))


def wanted(problems: Sequence[str], targets: Sequence[str]) -> Iterator[tuple[str, str, str, bool]]:
    """Yield what to judge: each seed that is for an architecture, as in a run; and then all of them closely."""
    for closely in (False, True):
        for target in targets:
            for problem in problems:
                for seed in fitting(problem, get_target(target)):
                    yield problem, seed, target, closely


def read(path: Path) -> list[Verdict]:
    """Return the verdicts in a file on seeds as they are now; none where there is no file."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    verdicts = [msgspec.json.decode(line, type=Verdict) for line in lines]
    return [
        each for each in verdicts if each.digest == Candidate(each.problem, seed_source(each.problem, each.seed)).digest
    ]


def table(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Yield a table with a row for each problem, seed and target, in the order in which they are judged."""
    yield "| problem | seed | target | verdict | seconds | closely |"
    yield "|---|---|---|---|--:|--:|"
    rows: dict[tuple[str, str, str], dict[bool, Verdict]] = {}
    order = list(wanted([*PROBLEMS, *SETTINGS], TARGETS))
    for each in sorted(verdicts, key=lambda each: order.index((each.problem, each.seed, each.target, each.closely))):
        rows.setdefault((each.problem, each.seed, each.target), {})[each.closely] = each
    for (problem, seed, target), found in rows.items():
        status = ", ".join(sorted({each.status for each in found.values()}))
        seconds = (f"{found[closely].processor_s:.0f}" if closely in found else "" for closely in (False, True))
        yield f"| `{problem}` | `{seed}` | {target} | {status} | {' | '.join(seconds)} |"


def compared(seeds: Sequence[str], times: int) -> Iterator[str]:
    """Yield what each seed takes in the mean of so many verdicts, and the ratio, for mha and gqa on h100."""
    for problem in ("mha", "gqa"):
        spent: dict[str, list[float]] = {seed: [] for seed in seeds}
        for seed in [*seeds] * times:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                spent[seed].append(pool.apply(judged, (problem, seed, "h100", False)).processor_s)
        first, second = map(fmean, spent.values())
        yield f"{problem}: {first:.2f} s of processor time against {second:.2f}, {first / second:.2f} times"


PARTS = ("starting", "capturing", "compiling", "small cases", "samples of large cases", "playing", "the rest")


def spent(problem: str, seed: str, closely: bool) -> defaultdict[str, float]:
    """Return the seconds of processor time that each part of a verdict for h100 takes. Call it in a process of its own.

    What has to be imported for it counts as starting, with the fork server.
    """
    from avo.evaluator.judging import checking, speed
    from avo.evaluator.sandbox.jobs import ForkServer

    found: defaultdict[str, float] = defaultdict(float)
    run = ForkServer.run

    def asked(server: ForkServer, job: str, *rest: Any) -> Any:
        before = server.processor_s
        outcome = run(server, job, *rest)
        found["capturing" if "capture" in job else "compiling"] += server.processor_s - before
        return outcome

    def timed(owner: Any, name: str, part: str) -> None:
        function = getattr(owner, name)

        def run(*args: Any) -> Any:
            started = time.process_time()
            try:
                return function(*args)
            finally:
                found[part] += time.process_time() - started

        setattr(owner, name, run)

    setattr(ForkServer, "run", asked)  # noqa: B010 - mypy does not let it be assigned
    timed(checking.Checker, "whole", "small cases")
    timed(checking.Checker, "sampled", "samples of large cases")
    timed(speed, "predict", "playing")
    imported = time.process_time()
    found["the rest"] = judged(problem, seed, "h100", closely).processor_s - sum(found.values())
    jobs = resource.getrusage(resource.RUSAGE_CHILDREN)
    served = jobs.ru_utime + jobs.ru_stime - found["capturing"] - found["compiling"]
    found["starting"], found["the rest"] = imported + served, found["the rest"] - served
    return found


def divided(kernels: Sequence[str]) -> Iterator[str]:
    """Yield the rows of a table of ``spent`` for seeds, by problem and name, each once and once closely."""
    yield f"| | {' | '.join(PARTS)} | all |"
    yield "|---" + "|--:" * (len(PARTS) + 1) + "|"
    for kernel in kernels:
        for closely in (False, True):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(spent, (*kernel.split("/"), closely))
            seconds = [*(found[part] for part in PARTS), sum(found.values())]
            yield f"| `{kernel}`{', closely' * closely} | {' | '.join(f'{each:.1f}' for each in seconds)} |"


def main() -> int:
    """Judge what is missing, or print the table; return 1 where a seed is not correct."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=TARGETS[:2])
    parser.add_argument("--problems", nargs="+", default=[*PROBLEMS, *SETTINGS])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / ".avo" / "verdicts.jsonl")
    parser.add_argument("--compare", nargs=2, metavar="SEED")
    parser.add_argument("--where", nargs="+", metavar="PROBLEM/SEED")
    parser.add_argument("--times", type=int, default=6)
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args()
    if options.compare:
        for line in compared(options.compare, options.times):
            print(line, flush=True)
        return 0
    if options.where:
        for line in divided(options.where):
            print(line, flush=True)
        return 0
    known = read(options.out)
    if options.write:
        PAGE.write_text(put(PAGE.read_text(), "bench.verdicts: seeds", "\n".join(table(known))))
        return 0
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = {(each.problem, each.seed, each.target, each.closely) for each in known}
    for asked in wanted(options.problems, options.targets):
        if asked in done:
            continue
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            verdict = pool.apply(judged, asked)
        known.append(verdict)
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(verdict)) + "\n")
        print(*asked, verdict.status, verdict.message, f"{verdict.processor_s} s", flush=True)
    return int(any(each.status != "correct" for each in known))


if __name__ == "__main__":
    raise SystemExit(main())
