"""The table by which an exported package dispatches: the calls each kernel takes, and its speed on each case."""

import ast
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

from avo.export.judging import Passed
from avo.watch.wording import place
from evaluator.problem import Case
from evaluator.problem_sources import blocks_of
from evaluator.target import ScoreKind


def names(versions: Sequence[Passed]) -> tuple[str, ...]:
    """Return the module names of the versions' kernels, all different."""
    found: list[str] = []
    for each in versions:
        plain = re.sub(r"[^a-z0-9]+", "_", f"k {each.chosen.run.name}".lower()).strip("_").removeprefix("k_")
        name = f"{plain if plain[:1].isalpha() else f'k_{plain}'}_{each.chosen.mark}"
        while name in found:
            name += "_"
        found.append(name)
    return tuple(found)


def ranked(versions: Sequence[Passed]) -> tuple[Passed, ...]:
    """Return the versions in the order of preference of their targets: measured ones first, otherwise as given."""
    return tuple(sorted(versions, key=lambda each: each.target.kind is not ScoreKind.MEASURED))


def table(versions: Sequence[Passed]) -> dict[str, list[dict[str, Any]]]:
    """Return plain data for ``dispatch.json``: a record for each kernel, and one for each kernel and case."""
    named = tuple(zip(names(versions), versions, strict=True))
    return {
        "kernels": [_kernel(name, each) for name, each in named],
        "cases": [record for name, each in named for record in _cases(name, each)],
    }


def _kernel(name: str, passed: Passed) -> dict[str, Any]:
    cases = passed.chosen.problem.correctness_cases
    gluon = mentions(passed.chosen.source, "gluon")
    return {
        "name": name,
        "function": passed.chosen.function,
        "version": passed.chosen.label,
        "target": place(passed.scores[0]),
        "capability": list(divmod(passed.target.arch, 10)),
        "dtypes": sorted({case.dtype for case in cases}),
        "head_dims": sorted({case.head_dim for case in cases}),
        "grouped": any(case.heads != case.kv_heads for case in cases),
        "block_sizes": sorted({blocks_of(case)[0] for case in cases} - {0}),
        "gluon": gluon,
        "interpretable": not gluon and not mentions(passed.chosen.source, "bfloat16"),
    }


def _cases(name: str, passed: Passed) -> list[dict[str, Any]]:
    cases: dict[str, Case] = {case.name: case for case in chain(*passed.chosen.problem.suites.values())}
    return [
        {
            "kernel": name,
            "case": found.case,
            "batch": (case := cases[found.case]).batch,
            "heads": case.heads,
            "kv_heads": case.kv_heads,
            "length": case.kv_len,
            "head_dim": case.head_dim,
            "causal": case.causal,
            "block_size": blocks_of(case)[0],
            "blocks": blocks_of(case)[1],
            "kind": score.kind,
            "tflops": round(found.tflops, 1),
        }
        for score in passed.scores
        for found in score.cases
    ]


def mentions(source: str, word: str) -> bool:
    """Return whether a name, attribute or import in ``source`` contains ``word``; comments, docstrings do not count."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                said = name
            case ast.ImportFrom(module=module):
                said = module or ""
            case _:
                continue
        if word in said:
            return True
    return False
