"""Time and memory of full offline evaluations of the mha seed, where the time goes, and candidates a minute.

    python -m bench.evaluate [--target h100] [--attempts 40]
    python -m bench.evaluate --target h200 --seed-kernel fsa/kv_outer

Peak memory is that of the judge plus that of its largest child: an upper bound. The stages are seconds of processor
time of the judge and its jobs, measured in a process of its own: for a judge's first evaluation, for a later one, as
all but the first are in a run, and for a look, which predicts speed and executes nothing. The second command prints the
processor time that the verdicts on another seed take.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from avo.evaluator.candidate import Candidate
from avo.evaluator.inspection import Inspection, Look
from avo.evaluator.sandbox.patience import processor_s as process_tree_s
from avo.lineage_db.store import Store
from avo.seeds import seed_source
from avo.watch.view import read_view

WORKERS = 2
SEED = seed_source("mha")
OTHER = SEED.replace("num_warps=4", "num_warps=8")


def evaluate(target: str, suite: str) -> tuple[float, tuple[float, ...], float]:
    """Return (seconds until ready, seconds of each evaluation, peak GiB) of a fresh judge that is asked for the seed,
    then for another kernel.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "avo.evaluator", "--target", target, "--suite", suite],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    ready = time.perf_counter()
    seconds = []
    for number, source in enumerate((SEED, OTHER)):
        asked = time.perf_counter()
        process.stdin.write(json.dumps({"id": number, "problem": "mha", "source": source}) + "\n")
        process.stdin.flush()
        answer = next(answer for answer in map(json.loads, process.stdout) if answer.keys() & {"evaluation", "error"})
        assert answer.get("evaluation", {}).get("status") == "correct", answer
        seconds.append(time.perf_counter() - asked)
    judge_kib = _peak_kib(process.pid)
    process.stdin.close()
    process.wait()
    children_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return ready - started, tuple(seconds), (judge_kib + children_kib) / 2**20


def _peak_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def stages(target: str, suite: str, before: str | None, look: bool = False) -> dict[str, float]:
    """Return the seconds of processor time of each stage of an evaluation or a ``look``, child processes included.

    ``before``: a source that the judge evaluates first, where there is one.
    """
    import torch

    from avo.evaluator import capture
    from avo.evaluator.compiling import compiler
    from avo.evaluator.judging import examination, judge, sampling, speed
    from avo.evaluator.serving.memory import collect_seldom, keep_freed_memory
    from avo.evaluator.targets import get_target

    keep_freed_memory()
    torch.set_num_threads(1)
    collect_seldom()
    spent: dict[str, float] = defaultdict(float)

    with judge.Judge(get_target(target), suite) as judging:
        judging._server.run(
            f"{compiler.JOB_MODULE}:canonical", b'{"texts": [], "arch": 90}', judging._tools.compiler._limits
        )
        server = judging._server.pid
        assert server is not None

        def clock() -> float:
            return time.process_time() + process_tree_s(server)

        def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                started = clock()
                try:
                    return work(*args, **options)
                finally:
                    spent[name] += clock() - started

            return call

        for owner, attribute, name in (
            (capture.Capturer, "_run", "capture"),
            (compiler.Compiler, "canonical", "canonical"),
            (examination.Examination, "_check_whole", "correctness"),
            (compiler.Compiler, "prepare", "compile"),
            (compiler.Compiler, "compile", "compile"),
            (examination, "stages", "counting"),
            (sampling.BenchmarkCheck, "_stored", "coverage"),
            (sampling.BenchmarkCheck, "_execute", "sample"),
            (speed, "predict", "predict"),
        ):
            setattr(owner, attribute, timed(name, getattr(owner, attribute)))
        if before is not None:
            judging.evaluate(Candidate("mha", before))
            spent.clear()
        started = clock()
        if look:
            assert judging.inspect(Inspection(Look.SPEED, "mha", SEED)).score is not None
        else:
            judging.evaluate(Candidate("mha", SEED))
        spent["rest"] = clock() - started - sum(spent.values())
    return dict(spent)


def processor_s(target: str, problem: str, kernel: str, suite: str, how: str) -> tuple[float, float]:
    """Return the seconds of processor time of a judge, and of its jobs, for one verdict on a seed.

    ``how``: by a new judge, ``later`` by one that has judged a seed of ``mha`` before, as all but the first in a run,
    or ``closely`` as before it is accepted, by a new one. Call it in a process of its own.
    """
    import torch

    from avo.evaluator.evaluators import EvaluateRequest, VerifyRequest
    from avo.evaluator.judging.judge import Judge
    from avo.evaluator.serving.memory import collect_seldom, keep_freed_memory
    from avo.evaluator.targets import get_target

    keep_freed_memory()
    torch.set_num_threads(1)
    collect_seldom()
    started, jobs_s = time.process_time(), 0.0
    candidate = Candidate(problem, seed_source(problem, kernel))
    with Judge(get_target(target), suite) as judge:
        if how == "later":
            judge.ask(EvaluateRequest(Candidate("mha", seed_source("mha")), None))
            assert judge._server.pid is not None
            started, jobs_s = time.process_time(), process_tree_s(judge._server.pid)
        verdict = judge.ask(VerifyRequest(candidate, None) if how == "closely" else EvaluateRequest(candidate, None))
    assert verdict.correct, verdict.message
    jobs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() - started, jobs.ru_utime + jobs.ru_stime - jobs_s


def per_minute(target: str, attempts: int) -> float:
    """Return the candidates that a run without looks judges in a minute, with ``WORKERS`` workers."""
    with tempfile.TemporaryDirectory() as folder:
        url = str(Path(folder, "lineage.db"))
        options = {
            "--seed-kernel": "plain",
            "--target": target,
            "--workers": WORKERS,
            "--step-looks": 0,
            "--max-attempts": attempts,
            "--db": url,
            "--name": "bench",
        }
        command = [sys.executable, "-m", "avo", "run", *(str(word) for pair in options.items() for word in pair)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with Store.open(url, create=False) as store:
            rate = read_view(store, "bench", datetime.now(UTC)).attempts_per_minute
    assert rate is not None
    return rate


def main() -> None:
    """Print one line a suite, the stages of the quick one, and the rate of a run; or what another seed takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="h100")
    parser.add_argument("--attempts", type=int, default=40)
    parser.add_argument("--seed-kernel", metavar="PROBLEM/NAME", help="print only what the verdicts on this seed take")
    options = parser.parse_args()
    target = options.target
    print(f"{platform.machine()}, {os.cpu_count()} cores, {target}")
    if options.seed_kernel:
        every = *product(("quick", "paper"), ("new", "later")), ("quick", "closely")
        for suite, how in every:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                judge_s, jobs_s = pool.apply(processor_s, (target, *options.seed_kernel.split("/"), suite, how))
            print(
                f"{f'{suite}, {how}':14} processor time {judge_s + jobs_s:5.1f} s, {jobs_s:4.1f} s of it jobs",
                flush=True,
            )
        return
    for suite in ("quick", "paper"):
        ready, (first, later), gib = evaluate(target, suite)
        print(
            f"{suite:6} start {ready:5.1f} s, evaluation {first:5.1f} s, the next {later:5.1f} s, peak {gib:4.1f} GiB"
        )
    for which, before, look in (("the first", None, False), ("a later one", OTHER, False), ("a look", OTHER, True)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            spent = pool.apply(stages, (target, "quick", before, look))
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in spent.items())
        print(f"quick, {which}: processor time {sum(spent.values()):.2f} s: {parts}")
    print(f"run with {WORKERS} workers, without looks: {per_minute(target, options.attempts):.0f} candidates a minute")


if __name__ == "__main__":
    main()
