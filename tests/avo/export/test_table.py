"""The table that exported packages dispatch by."""

from dataclasses import replace
from pathlib import Path

import pytest

from avo.export.errors import ExportError
from avo.export.judging import Passed
from avo.export.table import mentions, names, ranked, table
from evaluator.target import ScoreKind
from tests.avo.export.sample import chosen, passed, sample


def test_kernels_say_what_they_take_and_cases_how_fast_they_were(tmp_path: Path) -> None:
    run, versions = sample(tmp_path)
    found = table([passed(chosen(run, versions), 300.0, 250.0)])
    assert found["kernels"] == [
        {
            "name": "mha_h100_v3",
            "function": "attention",
            "version": "mha-h100@3",
            "target": "h100",
            "capability": [9, 0],
            "dtypes": ["bfloat16"],
            "head_dims": [128],
            "grouped": False,
            "block_sizes": [],
            "gluon": False,
            "interpretable": True,
        }
    ]
    assert [(case["case"], case["length"], case["tflops"]) for case in found["cases"]] == [
        ("8k-causal", 8192, 300.0),
        ("8k-full", 8192, 300.0),
        ("6k-causal", 6144, 250.0),
        ("5k-full", 5120, 250.0),
        ("ragged-causal", 12232, 250.0),
    ]


def test_grouped_queries_and_block_sizes_are_those_that_were_judged(tmp_path: Path) -> None:
    run, versions = sample(tmp_path)
    gqa = passed(chosen(run, versions, problem="gqa"), 1.0, 1.0)
    fsa = passed(chosen(run, versions, problem="fsa", name="f"), 1.0, 1.0, target="b200")
    first, second = table([gqa, fsa])["kernels"]
    assert first["grouped"]
    assert (second["function"], second["block_sizes"]) == ("selected_attention", [16, 32, 64, 128])
    assert second["capability"] == [10, 0]


def test_a_kernel_for_a_setting_takes_its_type_and_head_dim_alone(tmp_path: Path) -> None:
    run, versions = sample(tmp_path)
    found = table([passed(chosen(run, versions, problem="gqa-d64-fp16"), 1.0, 1.0)])
    assert (found["kernels"][0]["dtypes"], found["kernels"][0]["head_dims"]) == (["float16"], [64])
    assert {case["head_dim"] for case in found["cases"]} == {64}


@pytest.mark.parametrize(
    ("problem", "why"),
    [
        ("mha-d192x128", "with keys as long as values"),
        ("mha-w1024", "without windows"),
        ("gqa-packed", "without windows, sinks or packed sequences"),
    ],
)
def test_a_kernel_that_no_public_function_could_call_is_not_exported(tmp_path: Path, problem: str, why: str) -> None:
    run, versions = sample(tmp_path)
    with pytest.raises(ExportError, match=rf"{problem}, which no exported package knows: .* {why}"):
        chosen(run, versions, problem=problem)


def test_runs_whose_names_look_alike_get_modules_of_their_own(tmp_path: Path) -> None:
    run, versions = sample(tmp_path)
    one = chosen(run, versions, 1)
    runs = [replace(run, name=name) for name in ("a.b", "A-b", "1", "---")]
    given = [passed(replace(one, run=each), 1.0, 1.0) for each in runs]
    found = names(given)
    assert len(set(found)) == 4
    assert all(name.isidentifier() for name in found)


def test_measured_versions_count_before_predicted_ones(tmp_path: Path) -> None:
    predicted = passed(chosen(*sample(tmp_path)), 1.0, 1.0)
    measured: Passed = replace(predicted, target=replace(predicted.target, kind=ScoreKind.MEASURED))
    assert ranked([predicted, measured]) == (measured, predicted)


def test_only_code_mentions_a_type() -> None:
    assert mentions("x.to(tl.bfloat16)", "bfloat16")
    assert mentions("from triton.experimental import gluon", "gluon")
    assert not mentions('"bfloat16"  # bfloat16', "bfloat16")
