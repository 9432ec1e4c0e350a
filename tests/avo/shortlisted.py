"""What a card might measure of a recorded run: its first and its last version, by a law of the test's."""

from dataclasses import replace
from typing import Any

from avo.evaluator.measurement import Entrant, Measurement
from avo.lineage_db.store import Store
from tests.evaluator.test_confirmation import H100
from tests.evaluator.test_confirmation import measured as rounds_of
from tests.evaluator.test_measurement import FAST, START


def sealed(made: Measurement) -> Measurement:
    """Return the measurement as it comes out of its file."""
    return Measurement.from_json(made.to_json())


def measured(
    store: Store, run: str, *, rounds: int = 12, factor: float = 0.9, card: object = H100, status: str = "correct"
) -> Measurement:
    """Return what was measured: the last version, of that status, takes ``factor`` of the first one's time."""
    record = store.run(run)
    first, last = (store.versions(record.id)[place] for place in (0, -1))
    made = rounds_of([factor] * rounds, card=card, statuses=("correct", status))
    names = {START: f"v{first.number}", FAST: f"v{last.number}"}
    cases = [case.name for case in made.cases]

    def entrant(plain: Entrant) -> Entrant:
        if plain.name not in names:
            return plain
        attempt = (first if plain.name == START else last).attempt
        tflops = attempt.evaluation.geomean_tflops
        predicted: Any = dict.fromkeys(cases, (0.9 * tflops, tflops, 1.2 * tflops))
        return replace(
            plain, name=names[plain.name], attempt=attempt.id, digest=attempt.digest, source=attempt.source,
            predicted=predicted,
        )  # fmt: skip

    samples = tuple(replace(each, entrant=names.get(each.entrant, each.entrant)) for each in made.samples)
    entrants = tuple(map(entrant, made.entrants))
    return sealed(replace(made, run=run, start=names[START], entrants=entrants, samples=samples))
