"""What a model's owner gains."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from avo.evaluator.evaluation import CaseScore, Score
from avo.evaluator.target import ScoreKind
from avo.evaluator.units import percent
from avo.lineage_db.records import Run
from avo.lineage_db.store import Store
from avo.model_config import read_model
from avo.model_time import LAYER, owner_words, sizes_of
from avo.subject import FOR
from tests.avo.recorded import Recorded

CONFIG = Path(__file__).parent / "configs/Llama-3.1-8B.json"
H100_PEAK, H100_HBM = 4096 * 132 * 1.83e9, 3.35e12


def score(case: str, us: float) -> Score:
    return Score(ScoreKind.PREDICTED, "h100", (CaseScore(case, 1.0, us, "hbm"),))


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    path = tmp_path / "Llama-3.1-8B.json"
    path.write_text(json.dumps(json.loads(CONFIG.read_text()) | {"intermediate_size": 14336, "vocab_size": 128256}))
    return path


@pytest.fixture
def run(store: Store) -> Run:
    return Recorded(store).run


def of_model(llama: Path, run: Run, phase: str, lengths: tuple[int, ...]) -> Run:
    model = read_model(llama, phase, lengths)  # type: ignore[arg-type]
    return replace(
        run, problem=model.problem, suite="quick", config={FOR: {**model.to_json(), LAYER: sizes_of(model.config)}}
    )


def test_decoding_one_token_reads_all_weights_once(llama: Path, run: Run) -> None:
    named = of_model(llama, run, "decode", (8192,))
    words = owner_words(named, score("8192x1", 10.0), score("8192x1", 20.0))
    weights = 4096 * (32 + 8) * 2 * 128 + 3 * 4096 * 14336
    layer, head = (1e6 * 2 * count / H100_HBM for count in (weights, 128256 * 4096))
    now, before = (32 * (us + layer) + head for us in (10.0, 20.0))
    assert f"8192x1: {10 / (10 + layer):.0%} of a layer's and {320 / now:.0%} of a token's time" in words
    assert f"{percent(before / now - 1)} tokens/s over the seed" in words
    assert words.startswith("Predicted, attention takes of Llama-3.1-8B in decode at")


def test_prefill_is_bound_by_products_and_training_has_two_for_each(llama: Path, run: Run) -> None:
    weights = 4096 * (32 + 8) * 2 * 128 + 3 * 4096 * 14336
    layer = 1e6 * 2 * 8192 * weights / H100_PEAK
    for phase, times in (("prefill", 1), ("train", 2)):
        words = owner_words(of_model(llama, run, phase, (8192,)), score("8192x1", 1000.0), score("8192x1", 1000.0001))
        assert f"{1000 / (1000 + times * layer):.0%} of a layer's" in words
        assert ("+0.0% tokens/s" in words) == ("of a token's time" in words) == (phase == "prefill")
        assert ("of the whole backward pass's time, +0.0% speed of that pass" in words) == (phase == "train")


def test_sizes_of_a_mixture_are_those_of_its_experts(llama: Path) -> None:
    config = json.loads(llama.read_text()) | {"num_experts": 64, "num_experts_per_tok": 4, "moe_intermediate_size": 512}
    found = sizes_of(config)
    assert (found["inner"], found["experts"], found["active"]) == (512, 64, 4)


def test_a_run_without_a_model_or_its_sizes_says_nothing(run: Run) -> None:
    assert owner_words(run, score("8k", 1.0), score("8k", 1.0)) == ""
    assert sizes_of({"hidden_size": 4096}) == {}


@pytest.mark.parametrize(
    "other",
    [
        {"n_routed_experts": 64}, {"first_k_dense_replace": 1}, {"num_experts": "64"}, {"num_experts": [64]},
        {"hidden_size": "4096"}, {"text_config": [1]} | {"vocab_size": None},
    ],
)  # fmt: skip
def test_a_configuration_of_another_form_has_no_sizes(llama: Path, other: dict[str, object]) -> None:
    assert sizes_of(json.loads(llama.read_text()) | other) == {}
