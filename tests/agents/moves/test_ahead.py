"""Indices loaded a turn ahead: page numbers of decoding, entries of lists; what hangs on more than the loop is left."""

from pathlib import Path

import pytest

from avo.agents.moves import MOVES
from avo.evaluator.problems.decode import DECODE
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from bench.orders import module_of
from tests.evaluator.problems.offline_kernel import fault_of

H100 = get_target("h100")
(AHEAD,) = (move for move in MOVES if move.name == "ahead")
SEED = seed_source("decode")
TABLE = "tl.load(Table + batch * most + keys // PAGE, mask=in_n, other=0)"


@pytest.mark.parametrize("name", ["four-queries", "group-4-of-2"])
def test_page_numbers_are_loaded_a_turn_ahead_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    (variant,) = AHEAD.variants(SEED, H100)
    assert variant.label == "load page a turn ahead"
    before, _, loop = variant.source.partition("for start in")
    assert before.count("next_page = tl.load(Table") == loop.count("next_page = tl.load(Table") == 1
    assert "page = next_page.to(tl.int64)" in loop
    assert AHEAD.variants(variant.source, H100) == ()
    (case,) = (case for case in DECODE.correctness_cases if case.name == name)
    whole = variant.source.replace("PROGRAMS = 264", "PROGRAMS = 1")  # a sequence's tiles are turns of one loop
    assert fault_of(DECODE, case, module_of(whole, tmp_path)) is None


def test_entries_of_lists_are_indices_too() -> None:
    for problem in ("fsa", "fsa_backward"):
        assert len(AHEAD.variants(seed_source(problem, "kv_outer"), H100)) == 1


@pytest.mark.parametrize(
    "changed",
    [
        SEED.replace(", mask=in_n, other=0).to(tl.int64)", ").to(tl.int64)"),
        SEED.replace("in_n = keys < length", "in_n = (keys < length) & (row_max[0] < 1e30)"),
        SEED.replace("in_n = keys < length", "in_n = keys < tl.load(Lengths + batch)"),
        SEED.replace(
            "in_n = keys < length", "in_n = keys < length\n        if WINDOWED:\n            in_n = keys >= 0"
        ),
        SEED.replace("page * stride_kp", "batch * stride_kp").replace("page * stride_vp", "batch * stride_vp"),
        SEED.replace(TABLE, "tl.load(Table + batch * most, mask=length > 0, other=0)"),
    ],
    ids=["unmasked", "of an earlier turn", "of a load", "set in a branch", "no index", "the same in each turn"],
)
def test_other_loads_stay(changed: str) -> None:
    assert changed != SEED
    compile(changed, "changed", "exec")
    assert AHEAD.variants(changed, H100) == ()
