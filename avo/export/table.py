"""The table by which an exported package dispatches: the calls each kernel takes, and its speed on each case."""

import ast
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from avo.evaluator.evaluation import Score
from avo.evaluator.problem import Baseline, Case, longest, signature
from avo.evaluator.problem_sources import blocks_of, cap_of, is_local, lengths_of, window_of
from avo.evaluator.target import TARGETS, ScoreKind
from avo.evaluator.units import TFLOPS, Unit, unit_of, units_of
from avo.export.judging import Passed
from avo.model_time import owner_words
from avo.watch.headline import headline
from avo.watch.wording import place, resolved


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
    source = passed.chosen.source
    entry, tensors, scalars = signature(passed.chosen.problem)
    return {
        "name": name,
        "function": passed.chosen.function,
        "entry": entry,
        "tensors": list(tensors),
        "scalars": list(scalars),
        "version": passed.chosen.label,
        "target": place(passed.scores[0]),
        "capability": list(divmod(passed.target.arch, 10)),
        "dtypes": sorted({case.dtype for case in cases}),
        "head_dims": sorted({dims_of(case) for case in cases}),
        "grouped": any(case.heads != case.kv_heads for case in cases),
        "causal": sorted({case.causal for case in cases}),
        "block_sizes": sorted({blocks_of(case)[0] for case in cases} - {0}),
        "local": any(is_local(case) for case in cases),
        "softcap": cap_of(passed.chosen.problem),
        "longest": longest(passed.chosen.problem),
        "interpretable": not mentions(source, "gluon") and not mentions(source, "bfloat16"),
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
            "q_len": case.q_len,
            "length": case.kv_len,
            "head_dim": dims_of(case)[0],
            "head_dim_v": dims_of(case)[1],
            "causal": case.causal,
            "window": window_of(case),
            "lengths": list(lengths_of(case)),
            "block_size": blocks_of(case)[0],
            "blocks": blocks_of(case)[1],
            "kind": score.kind,
            "tflops": float(f"{found.tflops:.4g}"),
            "speed": unit_of_case(passed, judged.suite, found.case).cell(found.tflops),
        }
        for judged in passed.evaluations
        if (score := judged.score)
        for found in score.cases
    ]


def published(passed: Passed) -> tuple[Baseline, ...]:
    """Return what was published on the version's card for cases that it was judged on, with the figures of these alone.

    For a measured version that is the known card with the same number of multiprocessors.
    """
    cases = {case.case for score in passed.scores for case in score.cases}
    here = {each.name for each in TARGETS.values() if (each.arch, each.sms) == (passed.target.arch, passed.target.sms)}
    cards = {passed.target.name} if passed.target.name in TARGETS else here
    found = (
        replace(each, tflops={name: tflops for name, tflops in each.tflops.items() if name in cases})
        for each in passed.chosen.problem.baselines
        if each.target in cards
    )
    return tuple(each for each in found if each.tflops)


def others(passed: Passed, case: str, unit: Unit = TFLOPS) -> str:
    """Return in words what was published for a case on the version's card, and what libraries were measured there."""
    found = [f"{each.name} {unit.cell(each.tflops[case])}" for each in published(passed) if case in each.tflops]
    found += [
        f"{each.name} {unit.cell(each.tflops[case])}, measured" for each in passed.libraries if case in each.tflops
    ]
    return "; ".join(found) or "none known"


def of_seed(passed: Passed, suite: str, case: str, unit: Unit = TFLOPS) -> str:
    """Return in words how fast the seed beside a version is on a case."""
    scores = [each.score for each in passed.of_seed if each.suite == suite and each.score]
    return next(
        (unit.cell(found.tflops) for score in scores for found in score.cases if found.case == case), "none known"
    )


def unit_of_case(passed: Passed, suite: str, case: str) -> Unit:
    """Return how the speed of a kernel on a case is written."""
    run, score = passed.chosen.run, passed.scores[0]
    return units_of(run.problem, suite, run.target, score.card).get(case, TFLOPS)


def words(passed: Passed) -> str:
    """Return how fast a kernel is, in a sentence, on the suite of its run."""
    run, (suite, score, unit) = passed.chosen.run, _leading(passed)
    seed = next((each.score for each in passed.of_seed if each.score and each.suite == suite), None)
    said = headline(score, unit, passed.chosen.problem.baselines, passed.chosen.measured, seed)
    return " ".join(filter(None, (said, owner_words(run, score, seed))))


def neighbours(passed: Passed) -> str:
    """Return what the speed in that sentence is the mean of; empty where it is that of the kernel as compiled."""
    _, score, unit = _leading(passed)
    return resolved(score, unit)


def _leading(passed: Passed) -> tuple[str, Score, Unit]:
    """Return the suite of a kernel's run, its score there and how that is written."""
    run = passed.chosen.run
    judged = next((each for each in passed.evaluations if each.suite == run.suite), passed.evaluations[0])
    assert judged.score is not None, "what is exported passed"
    score, known = judged.score, passed.chosen.attempt.evaluation.score
    if known and judged.suite == run.suite and math.isclose(known.own_tflops, score.own_tflops, rel_tol=1e-6):
        score = replace(score, neighbours=known.neighbours)  # the run's figure: the same kernel has the same ones
    return judged.suite, score, unit_of(run.problem, judged.suite, run.target, score.card)


def takes(kernel: Mapping[str, Any]) -> str:
    """Return in words which calls a kernel of the table takes, besides the compute capability."""
    dims = (f"{key}" if key == value else f"{key} of keys and {value} of values" for key, value in kernel["head_dims"])
    masks = {(False,): "no mask", (True,): "the causal mask", (False, True): "with and without the causal mask"}
    pages = "pages" if kernel["function"] == "decode" else "blocks"
    parts = [
        " or ".join(kernel["dtypes"]),
        f"head dim {' or '.join(dims)}",
        "any group of query heads to a KV head" if kernel["grouped"] else "as many KV heads as query heads",
        "" if kernel["block_sizes"] else masks[tuple(kernel["causal"])],
        "a sliding window or none" if "window" in kernel["scalars"] else "",
        f"scores below a soft cap of {kernel['softcap']:g}" if kernel["softcap"] else "",
        "attention sinks" if "sinks" in kernel["tensors"] else "",
        "packed sequences" if "cu_seqlens_q" in kernel["tensors"] else "",
        f"{pages} of {', '.join(map(str, kernel['block_sizes']))} keys" if kernel["block_sizes"] else "",
        "any selection that has a query's own block" if kernel["local"] else "",
        f"up to {kernel['longest']:,} keys",
    ]
    return ", ".join(filter(None, parts))


def dims_of(case: Case) -> tuple[int, int]:
    """Return the elements of a key and of a value."""
    return case.head_dim, case.head_dim_v or case.head_dim


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
