"""What checks the sources that moves make: the offline executor for numbers, the compiler for artefacts."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from avo.evaluator.capture import Capturer
from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.evaluation import Fault
from avo.evaluator.performance.sass import parse
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.target import Target
from avo.seeds import seed_source

Complaint = Callable[..., str]
Opcodes = Callable[[str, Target], "Counter[str]"]


@pytest.fixture(scope="session")
def seed() -> str:
    """The plain attention kernel."""
    return seed_source("mha")


@pytest.fixture(scope="session")
def complaint() -> Iterator[Complaint]:
    """Returns what is wrong with a candidate's numbers, or an empty string; ``checked_as`` is a key of ``CHECKS``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.agents.checker"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )

    def complaint(source: str, checked_as: str = "attention") -> str:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps([checked_as, source]) + "\n")
        process.stdin.flush()
        return str(json.loads(process.stdout.readline()))

    yield complaint
    process.communicate()


@pytest.fixture(scope="session")
def opcodes(fork_server: ForkServer) -> Opcodes:
    """Counts the machine instructions, by opcode without operands and by its first part, of a candidate's kernel."""
    capturer, compiler = Capturer(fork_server), Compiler(None, server=fork_server)
    problem = get_problem("mha")
    case = next(case for case in get_suite(problem, "quick") if case.causal)

    def opcodes(source: str, target: Target) -> "Counter[str]":
        plans = capturer.capture(source, problem.entry, [problem.call(case)], target)
        assert not isinstance(plans, Fault), plans
        binary = compiler.compile(plans[0].kernels[0], target)
        assert not isinstance(binary, Fault), binary
        instructions = parse(binary.listing).instructions
        return Counter(i.base for i in instructions) + Counter({"all": len(instructions), "threads": binary.threads})

    return opcodes
