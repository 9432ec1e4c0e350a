"""Seeds: the kernels that a search starts from, by problem and name.

A seed is a candidate: one file that imports nothing of ours, so related seeds repeat what they have in common. The
folder of a problem's name here says in ``SEEDS`` which there are, the default first.
"""

from importlib import import_module
from importlib.resources import files
from pkgutil import iter_modules

from avo.evaluator.catalogue import kind_and_setting
from avo.evaluator.setting import Setting
from avo.evaluator.target import Target
from avo.seeds.seed import Seed

if __name__ != "avo.seeds":  # a checkout on the path has this folder under both names
    raise ModuleNotFoundError("write avo.seeds, or run outside of AVO's checkout", name=__name__)

KINDS = tuple(sorted(module.name for module in iter_modules(__path__) if module.ispkg))
"""The problems that have seeds."""


def claimed(kind: str) -> tuple[Seed, ...]:
    """Return the seeds that a problem has for any setting; none for a problem that has no seed."""
    found: tuple[Seed, ...] = import_module(f"{__name__}.{kind}").SEEDS if kind in KINDS else ()
    return found


def _seeds(problem: str) -> tuple[Seed, ...]:
    kind, setting = kind_and_setting(problem)
    return tuple(seed for seed in claimed(kind) if seed.serves(setting or Setting()))


def seeds_of(problem: str) -> dict[str, Seed]:
    """Return a problem's seeds by name, the default first; none for a problem that has no seed."""
    return {seed.name: seed for seed in _seeds(problem)}


def fitting(problem: str, target: Target | None, *, gluon: bool = True) -> list[str]:
    """Return the names of a problem's seeds for a card, or for None of all; without ``gluon`` only those in Triton."""

    def fits(seed: Seed) -> bool:
        return seed.cards is None or (gluon and (target is None or seed.cards(target)))

    return [seed.name for seed in _seeds(problem) if fits(seed)]


def seed_source(problem: str, name: str | None = None) -> str:
    """Return the source of a problem's seed, its default one for None; raise ``KeyError`` where there is none."""
    seeds = seeds_of(problem)
    if not seeds:
        raise KeyError(problem)
    seed = seeds[name or next(iter(seeds))]
    source = (files(__name__) / seed.file).read_text(encoding="utf-8")
    for old, new in seed.edits:
        assert old in source, f"{seed.file} has no {old!r}"
        source = source.replace(old, new)
    return source
