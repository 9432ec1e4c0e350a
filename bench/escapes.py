"""How likely a wrong kernel is to be accepted, by how much of its output it spoils.

python -m bench.escapes             prints the tables
python -m bench.escapes lengths     prints one of them, by name
python -m bench.escapes --write     also puts them into docs/trust.md, between their markers

Nothing is judged: the judge's own samplers are asked, many times, what they would look at. All errors are taken to be
larger than the tolerances.
"""

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch

from avo.evaluator.judging import places
from avo.evaluator.judging.sampling import BEFORE_ACCEPTANCE, EACH_TIME, ELSEWHERE, Sample, random_groups, some_of
from avo.evaluator.problem import HELD_OUT, Case
from avo.evaluator.problem import longest as longest_judged
from avo.evaluator.problems.mha import MHA
from avo.evaluator.target import TARGETS
from bench.tables import Table, main, row

DOCUMENT = Path(__file__).parents[1] / "docs" / "trust.md"
TRIALS = 100
"""Samples that are drawn of a case."""
EXAMINATIONS = 1000


@dataclass(frozen=True)
class Tiling:
    """Which rows the programs of a kernel make: tiles of a head, in turn."""

    name: str
    rows: int
    """Rows of a tile."""
    programs: int | None = None
    """Number of programs; None for one for each tile."""


KERNELS = (Tiling("a program for each 64 rows", 64), Tiling("a program for each SM", 128, TARGETS["h100"].sms))
UNITS = {"rows": (1000,), "tiles": (1000, 100, 20, 4), "heads": (64, 8, 2)}
"""What may be spoiled: one in so many. Any such part is as likely to be met as another."""
SPOILED_FROM = 1024
"""Fewest keys at which a kernel is spoiled that is wrong at all lengths but the small cases'."""
REGIONS = {
    "all within 1%": 1.01,
    "all within 5%": 1.05,
    "all within 20%": 1.2,
    "from one to its double": 2.0,
    "from one to four times that": 4.0,
}
"""Ranges of lengths, by their width as a factor."""
STRUCTURES: dict[str, Callable[[Case], bool]] = {
    "tiles of 128 keys are full, from 1,100 keys on": lambda case: case.kv_len % 128 == 0 and case.kv_len >= 1100,
    "an odd number of tiles of 128 keys is full, from 1,100 keys on": lambda case: (
        case.kv_len % 256 == 128 and case.kv_len >= 1100
    ),
    "as many queries as keys meet, from 2,048 keys on": lambda case: case.q_len == case.kv_len >= 2048,
}


def looked_at(case: Case, kernel: Tiling, sample: Sample, chance: random.Random) -> torch.Tensor:
    """Return the rows that one check compares, bool [batch, heads, rows]; see ``avo.evaluator.judging.sampling``."""
    shape = case.batch, case.heads, math.ceil(case.q_len / kernel.rows)
    tile = torch.arange(math.prod(shape)).view(shape)
    program = tile % kernel.programs if kernel.programs else tile
    flop = MHA.flops(case) / (int(program.max()) + 1)
    wanted = random_groups((case.batch, case.heads, case.q_len), sample.groups_of(flop), chance)
    made = torch.isin(program, program[by_tile(wanted, kernel)])
    return wanted | some_of(made.repeat_interleave(kernel.rows, 2)[..., : case.q_len], chance)


def by_tile(rows: torch.Tensor, kernel: Tiling) -> torch.Tensor:
    """Return the tiles, bool [batch, heads, tiles], that have some of ``rows``, bool [batch, heads, rows]."""
    return torch.stack([part.any(2) for part in rows.split(kernel.rows, 2)], 2)


@cache
def seen(case: Case, kernel: Tiling, sample: Sample) -> list[dict[str, tuple[int, int]]]:
    """Return, for each of ``TRIALS`` checks, how many rows, tiles and heads are looked at, and how many there are."""
    chance = random.Random(f"{case.name} {kernel.name}")
    checks = [looked_at(case, kernel, sample, chance) for _ in range(TRIALS)]
    found = [{"rows": rows, "tiles": by_tile(rows, kernel), "heads": rows.any(-1)} for rows in checks]
    return [{unit: (int(m.count_nonzero()), m.numel()) for unit, m in of_check.items()} for of_check in found]


def missed(share: float, met: int, units: int) -> float:
    """Return the probability that none of the units that are ``met`` is spoiled, if ``share`` of all are."""
    spoiled = share * units
    if spoiled < 1:  # then only some such cases have one
        return 1 - share * met
    return math.prod(max(units - round(spoiled) - i, 0) / (units - i) for i in range(met))


def escapes(kernel: Tiling, unit: str, share: float, cases: Iterable[Case], sample: Sample) -> float:
    """Return the probability that no spoiled unit is looked at in a check of each case, when ``share`` are spoiled."""
    checks = [seen(case, kernel, sample) for case in cases]
    return math.prod(sum(missed(share, *found[unit]) for found in of_case) / len(of_case) for of_case in checks)


def samples() -> Table:
    """Yield the table of errors in a part of the output."""
    yield row(
        "kernel has", "spoiled", "one evaluation", "before acceptance", "accepted", "in both cases", "at all lengths"
    )
    yield row(*["---"] * 7)
    one, *_ = both = MHA.suites["quick"]
    drawn = [case for case in places.drawn(MHA, random.Random(0)) if case.kv_len >= SPOILED_FROM]
    for kernel in KERNELS:
        for unit, numbers in UNITS.items():
            for number in numbers:
                chance = partial(escapes, kernel, unit, 1 / number)
                each, closely = chance([one], EACH_TIME), chance([one], BEFORE_ACCEPTANCE)
                twice = chance(both, EACH_TIME) * chance(both, BEFORE_ACCEPTANCE)
                rest = chance(MHA.suites[HELD_OUT], BEFORE_ACCEPTANCE) * chance(drawn, ELSEWHERE)
                chances = map(percent, (each, closely, each * closely, twice, twice * rest))
                yield row(kernel.name, f"{unit}, 1 in {number}", *chances)


def lengths() -> Table:
    """Yield the table of errors at lengths that are in no suite."""
    yield row("wrong at lengths", "and only", "accepted")
    yield row(*["---"] * 3)
    chance = random.Random(0)
    shortest, longest = places.SHORTEST, longest_judged(MHA)
    structures: dict[str, Callable[[Case], bool]] = {
        "": lambda case: True,
        "where memory is not contiguous": lambda case: case.layout != "contiguous",
        "for one sequence and one head": lambda case: case.batch * case.heads == 1,
    }
    for words, width in REGIONS.items():
        for structure, holds in structures.items():
            missed = 0
            for drawn in examinations():
                start = shortest * (longest / width / shortest) ** chance.random()
                missed += not any(start <= case.kv_len <= start * width and holds(case) for case in drawn)
            yield row(words, structure, percent(missed / EXAMINATIONS))


def structures() -> Table:
    """Yield the table of errors that depend on how lengths divide, or on the ratio of queries to keys."""
    yield row("wrong where", "accepted")
    yield row(*["---"] * 2)
    for words, spoiled in STRUCTURES.items():
        missed = sum(not any(map(spoiled, drawn)) for drawn in examinations())
        yield row(words, percent(missed / EXAMINATIONS))


@cache
def examinations() -> list[list[Case]]:
    """Return what many examinations before acceptance would draw."""
    return [places.drawn(MHA, random.Random(i)) for i in range(EXAMINATIONS)]


def percent(share: float) -> str:
    """Return a probability in words."""
    if share < 1e-4:
        return "< 0.01%"
    return f"{100 * share:.2g}%" if share < 0.995 else f"{share:.1%}"


TABLES: dict[str, Callable[[], Table]] = {"samples": samples, "lengths": lengths, "structures": structures}


if __name__ == "__main__":
    main("bench.escapes", __doc__, TABLES, DOCUMENT)
