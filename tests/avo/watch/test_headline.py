"""The sentence on top."""

from avo.evaluator.evaluation import CaseScore, Score
from avo.evaluator.problem import Baseline
from avo.evaluator.target import ScoreKind
from avo.evaluator.units import TFLOPS, unit_of
from avo.watch.headline import headline


def score(tflops: float, low: float = 0.0, high: float = 0.0, kind: ScoreKind = ScoreKind.PREDICTED) -> Score:
    card = "" if kind is ScoreKind.PREDICTED else "NVIDIA H100"
    return Score(kind, "h100", (CaseScore("8k-full", tflops, 1.0, "tensor", {}, low, high),), card=card)


def baselines(**speeds: float) -> list[Baseline]:
    return [Baseline(name, "h100", {"8k-full": tflops}, "a paper") for name, tflops in speeds.items()]


def test_a_prediction_is_compared_with_what_was_published_by_its_range() -> None:
    said = headline(score(589.7, 443.2, 706.9), TFLOPS, baselines(slow=370, slower=351, cuDNN=563, FA3=624, tcgen=900))
    assert said == (
        "Predicted 590 (443 to 707) TFLOPS on H100: likely faster than slower and slow, not distinguishable from cuDNN "
        "and FA3, likely slower than tcgen, not measured."
    )


def test_a_measurement_is_not_called_unmeasured_and_other_machines_have_a_margin() -> None:
    said = headline(score(600, 598, 602, ScoreKind.MEASURED), TFLOPS, baselines(near=590, far=560))
    assert said == (
        "Measured 600 (598 to 602) TFLOPS on NVIDIA H100: likely faster than far, not distinguishable from near."
    )


def test_without_published_figures_it_is_compared_with_its_seed_as_far_as_that_is_resolved() -> None:
    def with_neighbours(tflops: float) -> Score:
        drawn = tuple((tflops * factor,) for factor in (0.99, 1.0, 1.01))
        return Score(ScoreKind.PREDICTED, "h100", score(tflops).cases, neighbours=drawn)

    assert "not distinguishable from its seed, within the resolution of 3.3%" in headline(
        with_neighbours(102), TFLOPS, (), None, score(100)
    )
    assert "1.50 ±0.05 times as fast as its seed, not measured." in headline(
        with_neighbours(150), TFLOPS, (), None, score(100)
    )


def test_memory_bound_speeds_are_in_time_bandwidth_and_share() -> None:
    said = headline(score(27.6, 24, 30), unit_of("decode", "quick", "h100"), ())
    assert said == "Predicted 82.5 us, 1730 (1510 to 1880) GB/s, 52% of the peak on H100: not measured."
