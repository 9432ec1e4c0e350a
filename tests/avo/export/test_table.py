"""The table that exported packages dispatch by."""

from dataclasses import replace

import pytest

from avo.evaluator.target import ScoreKind
from avo.export.choosing import check_together, choose
from avo.export.errors import ExportError
from avo.export.judging import Passed
from avo.export.package import render_package
from avo.export.table import mentions, names, neighbours, published, ranked, table, takes, words
from tests.avo.export.sample import chosen, passed, sample
from tests.avo.sample_run import START


def test_kernels_say_what_they_take_and_cases_how_fast_they_were() -> None:
    run, versions = sample()
    found = table([passed(chosen(run, versions), 300.0, 250.0)])
    assert found["kernels"] == [
        {
            "name": "mha_h100_v3",
            "function": "attention",
            "entry": "attention",
            "tensors": ["q", "k", "v", "out", "lse"],
            "scalars": ["causal", "scale"],
            "version": "mha-h100@3",
            "target": "h100",
            "capability": [9, 0],
            "dtypes": ["bfloat16"],
            "head_dims": [(128, 128)],
            "grouped": False,
            "causal": [False, True],
            "block_sizes": [],
            "local": False,
            "softcap": 0.0,
            "longest": 65536,
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


def test_grouped_queries_and_block_sizes_are_those_that_were_judged() -> None:
    run, versions = sample()
    gqa = passed(chosen(run, versions, problem="gqa"), 1.0, 1.0)
    fsa = passed(chosen(run, versions, problem="fsa", name="f"), 1.0, 1.0, target="b200")
    first, second = table([gqa, fsa])["kernels"]
    assert first["grouped"]
    assert (second["function"], second["block_sizes"]) == ("selected_attention", [16, 32, 64, 128])
    assert second["capability"] == [10, 0]


def test_a_kernel_for_a_setting_takes_its_type_and_head_dim_alone() -> None:
    run, versions = sample()
    found = table([passed(chosen(run, versions, problem="gqa-d64-fp16"), 1.0, 1.0)])
    assert (found["kernels"][0]["dtypes"], found["kernels"][0]["head_dims"]) == (["float16"], [(64, 64)])
    assert {case["head_dim"] for case in found["cases"]} == {64}


@pytest.mark.parametrize(
    ("problem", "record", "words"),
    [
        ("mha-d192x128", {"head_dims": [(192, 128)]}, "head dim 192 of keys and 128 of values"),
        ("mha-w1024", {"scalars": ["causal", "scale", "window"], "causal": [True]}, "a sliding window or none"),
        ("gqa-w1024-sinks", {"tensors": ["q", "k", "v", "sinks", "out", "lse"]}, "attention sinks"),
        ("gqa-packed", {"grouped": True, "causal": [False, True]}, "packed sequences"),
        ("mha_backward", {"function": "attention", "entry": "attention_backward"}, "the causal mask"),
        ("fsa_backward", {"function": "selected_attention"}, "blocks of 16, 32, 64, 128 keys"),
        ("fsa-sinks-packed", {"local": False}, "attention sinks, packed sequences, blocks of 16"),
        ("fsa-local", {"local": True}, "blocks of 16, 32, 64, 128 keys, any selection that has a query's own block"),
        ("decode", {"function": "decode", "block_sizes": [16, 32, 64, 128]}, "pages of 16, 32, 64, 128 keys"),
        ("gqa-c50", {"scalars": ["causal", "scale", "softcap"], "softcap": 50.0}, "scores below a soft cap of 50"),
        ("mha_backward-w1024-sinks", {"function": "attention", "grouped": False}, "attention sinks"),
    ],
)
def test_settings_and_backward_passes_say_what_they_take(problem: str, record: dict[str, object], words: str) -> None:
    run, versions = sample()
    (kernel,) = table([passed(chosen(run, versions, problem=problem), 1.0, 1.0)])["kernels"]
    assert {name: kernel[name] for name in record} == record
    assert words in takes(kernel)


def test_cases_say_windows_and_packed_sequences() -> None:
    run, versions = sample()
    windows, packed = (
        table([passed(chosen(run, versions, problem=problem), 1.0, 1.0)])["cases"]
        for problem in ("mha-w1024-global", "gqa-packed")
    )
    assert {case["window"] for case in windows} == {0, 1024}
    assert all(len(case["lengths"]) >= 2 and sum(case["lengths"]) == case["length"] for case in packed)


def test_published_figures_are_those_of_the_card_at_the_same_shapes() -> None:
    run, versions = sample()
    found = published(passed(chosen(run, versions), 300.0, 250.0))
    assert "FlashAttention-3" in {each.name for each in found}
    assert {name for each in found for name in each.tflops} == {"8k-causal", "8k-full"}
    assert not published(passed(chosen(run, versions), 300.0, 250.0, target="l40s"))
    measured = passed(chosen(run, versions), 300.0, 250.0)
    here = replace(measured, target=replace(measured.target, name="cuda", kind=ScoreKind.MEASURED))
    assert published(here) == found


def test_gradients_alone_are_not_exported() -> None:
    run, versions = sample()
    forward, backward, other = (
        chosen(run, versions, problem=problem, name=problem) for problem in ("gqa", "mha_backward", "fsa_backward")
    )
    check_together([forward, backward])
    with pytest.raises(ExportError, match="fsa_backward@3 computes gradients of selected_attention: name a version"):
        check_together([forward, backward, other])
    packed = chosen(run, versions, problem="gqa_backward-packed", name="packed")
    with pytest.raises(ExportError, match="packed@3 computes gradients that no other version named here needs"):
        check_together([forward, backward, packed])
    with pytest.raises(ExportError, match="needs: its types, head dims, packing or soft cap are others"):
        check_together([chosen(run, versions, problem="gqa-c50"), backward])


def test_runs_whose_names_look_alike_get_modules_of_their_own() -> None:
    run, versions = sample()
    one = chosen(run, versions, 1)
    runs = [replace(run, name=name) for name in ("a.b", "A-b", "1", "---")]
    given = [passed(replace(one, run=each), 1.0, 1.0) for each in runs]
    found = names(given)
    assert len(set(found)) == 4
    assert all(name.isidentifier() for name in found)


def test_measured_versions_count_before_predicted_ones() -> None:
    predicted = passed(chosen(*sample()), 1.0, 1.0)
    measured: Passed = replace(predicted, target=replace(predicted.target, kind=ScoreKind.MEASURED))
    assert ranked([predicted, measured]) == (measured, predicted)


def test_only_code_mentions_a_type() -> None:
    assert mentions("x.to(tl.bfloat16)", "bfloat16")
    assert mentions("from triton.experimental import gluon", "gluon")
    assert not mentions('"bfloat16"  # bfloat16', "bfloat16")


@pytest.mark.parametrize(("factor", "speed"), [(1.0, 1.02), (1.1, 1.1)])
def test_the_same_kernel_has_the_speed_that_its_run_shows(factor: float, speed: float) -> None:
    """It is judged again without neighbours, which the run's figure is the mean of; another kernel has others."""
    run, versions = sample()
    score = versions[3].attempt.evaluation.score
    assert score is not None
    near = replace(score, neighbours=((1.01 * score.own_tflops,), (1.03 * score.own_tflops,)))
    attempt = replace(versions[3].attempt, evaluation=replace(versions[3].attempt.evaluation, score=near))
    own = score.own_tflops * factor
    found = passed(choose(run, versions, attempt), own, own)
    said, means = words(found), neighbours(found)
    assert said.startswith(f"Predicted {speed * score.own_tflops:.0f} TFLOPS on H100")
    assert means.startswith("mean of 2 neighbours, ") == (factor == 1.0)
    page = render_package("mine", [found], START)["README.md"]
    assert ("the speed on top: mean of 2 neighbours" in page) == (factor == 1.0)
