"""Seeds: the kernels that a search starts from, by problem and name."""

from importlib.resources import files

SEEDS = {
    "mha": {
        "plain": "mha/plain.py",
        "tuned": "mha/tuned.py",
        "hopper": "mha/hopper.py",
        "blackwell": "mha/blackwell.py",
    },
    "gqa": {"plain": "mha/plain.py", "tuned": "mha/tuned.py"},
    "mha_backward": {"plain": "backward/plain.py"},
    "gqa_backward": {"plain": "backward/plain.py"},
    "decode": {"split": "decode/split.py"},
    "fsa": {"query_outer": "fsa/query_outer.py", "kv_outer": "fsa/kv_outer.py"},
}
"""Files of each problem's seeds by name; the first is the default. The dense ones work for any head mapping."""
_GLUON = {"mha/hopper.py": (90,), "mha/blackwell.py": (100, 103)}
"""Seeds in Gluon, each with the compute capabilities, times ten, that it is for; seeds in Triton are for all."""


def fitting(problem: str, arch: int | None, *, gluon: bool) -> list[str]:
    """Return the names of a problem's seeds for an architecture, or for None of all; those in Gluon if asked for.

    Raises ``KeyError`` where there is no seed for the problem.
    """

    def fits(file: str) -> bool:
        return file not in _GLUON or (gluon and (arch is None or arch in _GLUON[file]))

    return [name for name, file in SEEDS[problem].items() if fits(file)]


def seed_source(problem: str, name: str | None = None) -> str:
    """Return the source of a problem's seed, its default one for None; raise ``KeyError`` where there is none."""
    seeds = SEEDS[problem]
    return (files(__name__) / seeds[name or next(iter(seeds))]).read_text(encoding="utf-8")
