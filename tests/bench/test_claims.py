"""What notes claim about gains is what the model of the day predicts; claims that are wrong are told apart."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from avo.evaluator.catalogue import get_cases, get_problem
from avo.evaluator.targets import get_target
from avo.knowledge_base.claims import read_claim
from avo.knowledge_base.library import NOTES
from avo.knowledge_base.note import read_notes
from bench import claims
from bench.claims import Predictions, Unmakeable, made
from tests.corpus import sample

CLAIMS = {f"{note.id}: {claim}": claim for note in read_notes(NOTES) for claim in note.claims}


@pytest.fixture(scope="module")
def predictions() -> Iterator[Predictions]:
    with Predictions() as made:
        yield made


@pytest.mark.long
@pytest.mark.parametrize("name", sample(CLAIMS, 1, 2))
def test_a_claim_is_what_the_model_predicts(name: str, predictions: Predictions) -> None:
    """Where it is not, ``python -m bench.claims --write`` mends the claim; the note's words may have to follow."""
    claim = CLAIMS[name]
    gain = predictions.gain(claim)
    assert claim.holds(gain), f"the model has {gain:+.1f}%"


def test_claims_are_about_targets_and_benchmark_cases_that_exist() -> None:
    assert len(CLAIMS) >= 15
    for claim in CLAIMS.values():
        get_target(claim.target)
        get_cases(get_problem(claim.problem), "quick", claim.case)


def test_steps_are_seeds_files_moves_by_their_words_and_constants() -> None:
    assert "num_stages=3" in made(("mha/plain", "stages(1 -> 3)"), "h100")
    wide = made(("mha/plain", "mha:bench/kernels/roles.py", "ROWS=64"), "h100")
    assert "\nROWS = 64\n" in wide


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        (("mha/plain", "fly"), "fly: there is no move 'fly'"),
        (("mha/plain", "stages(7)"), r"stages\(7\) does not apply to the kernel: its variants are num_stages 1 -> 2"),
        (("mha:bench/kernels/roles.py", "COLUMNS=1"), "COLUMNS=1: the kernel sets COLUMNS 0 times, not once"),
    ],
)
def test_a_step_that_cannot_be_made_says_why(steps: tuple[str, ...], why: str) -> None:
    with pytest.raises(Unmakeable, match=why):
        made(steps, "h100")


def test_a_gain_is_that_of_the_kernel_after_over_the_kernel_before(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = read_claim("h100 8k-full: mha/plain => stages(3): +8% within 3")
    speeds = {claim.before: 100.0, (*claim.before, *claim.after): 91.0}
    monkeypatch.setattr(Predictions, "_tflops", lambda self, of, steps: speeds[steps])
    assert Predictions().gain(replace(claim, gain=0.0)) == pytest.approx(-9.0)


@pytest.mark.parametrize(
    ("claimed", "gain", "holds"),
    [(8, 10.9, True), (8, 11.1, False), (-1, 1.4, False), (-1, -3.9, True), (0, 2.9, True), (-0.5, 0.4, True)],
)
def test_a_gain_where_a_loss_is_claimed_is_off_though_it_is_near(claimed: float, gain: float, holds: bool) -> None:
    claim = replace(read_claim("h100 8k-full: mha/plain => stages(3): +8% within 3"), gain=claimed)
    assert claim.holds(gain) is holds


def test_claims_that_are_off_are_named_and_mended_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    note = tmp_path / "a.md"
    note.write_text("---\ntitle: T\nsource: s\nclaim: h100 8k-full: mha/plain => stages(3): +8% within 3\n---\nB")
    monkeypatch.setattr(claims, "NOTES", tmp_path)
    monkeypatch.setattr(Predictions, "_tflops", lambda self, of, steps: 100.0 if len(steps) == 1 else 141.7)
    assert claims.main([]) == 1
    assert "OFF  a: h100 8k-full: mha/plain => stages(3): +8% within 3: the model has +41.7%" in capsys.readouterr().out
    assert claims.main(["a", "--write"]) == 0
    assert "claim: h100 8k-full: mha/plain => stages(3): +42% within 3\n" in note.read_text()
    assert claims.main([]) == 0
    note.write_text(note.read_text().replace("stages(3)", "fly"))
    monkeypatch.undo()
    monkeypatch.setattr(claims, "NOTES", tmp_path)
    monkeypatch.setattr(Predictions, "_tflops", lambda self, of, steps: float(len(made(steps, "h100"))))
    assert claims.main([]) == 1
    assert "fly: there is no move 'fly'" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        claims.main(["b"])
