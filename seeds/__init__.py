"""Seeds: the kernels that a search starts from, by problem and name.

A seed is a candidate: one file that imports nothing of ours, so related seeds repeat what they have in common.
"""

from collections.abc import Callable
from importlib.resources import files

from avo.evaluator.catalogue import kind_and_setting
from avo.evaluator.setting import Setting
from avo.evaluator.target import Target

if __name__ != "avo.seeds":  # a checkout on the path has this folder under both names
    raise ModuleNotFoundError("write avo.seeds, or run outside of AVO's checkout", name=__name__)

SEEDS = {
    "mha": {
        "plain": "mha/plain.py",
        "tuned": "mha/tuned.py",
        "hopper": "mha/hopper.py",
        "blackwell": "mha/blackwell.py",
        "general": "mha/general.py",
    },
    "gqa": {
        "plain": "mha/plain.py",
        "tuned": "mha/tuned.py",
        "hopper": "mha/hopper.py",
        "blackwell": "mha/blackwell.py",
        "general": "mha/general.py",
    },
    "mha_backward": {"plain": "backward/plain.py", "general": "backward/general.py"},
    "gqa_backward": {"plain": "backward/plain.py", "general": "backward/general.py"},
    "decode": {"split": "decode/split.py"},
    "fsa_backward": {
        "kv_outer": "fsa/backward_kv_outer.py",
        "query_outer": "fsa/backward_query_outer.py",
        "general": "fsa/backward_general.py",
    },
    "fsa": {"query_outer": "fsa/query_outer.py", "kv_outer": "fsa/kv_outer.py", "general": "fsa/general.py"},
}
"""Files of the seeds of each kind of problem, by name. The dense ones work for any head mapping."""
_GLUON: dict[str, Callable[[Target], bool]] = {
    "mha/hopper.py": lambda target: target.warpgroup_products,
    "mha/blackwell.py": lambda target: target.tensor_memory,
}
"""Seeds in Gluon, each with the cards that it is for; seeds in Triton are for all."""


def _unpadded(setting: Setting) -> bool:
    return setting.plain and setting.head_dim.bit_count() == 1


def _in_gluon(setting: Setting) -> bool:
    return (setting.head_dim, setting.dtype) == (128, "bfloat16") and setting.plain


_SETTINGS: dict[str, Callable[[Setting], bool]] = {
    "mha/plain.py": lambda setting: setting.plain,
    # Blocks of descriptors are powers of two, and 256 dimensions do not fit with its tiles.
    "mha/tuned.py": lambda setting: setting.head_dim in (64, 128) and setting.plain,
    "mha/hopper.py": _in_gluon,
    "mha/blackwell.py": _in_gluon,
    # Both take rows of 96 and 192 elements in two parts.
    "mha/general.py": lambda setting: not _unpadded(setting),
    "backward/plain.py": _unpadded,
    "backward/general.py": lambda setting: not _unpadded(setting),
    **{
        f"fsa/{name}.py": lambda setting: setting.plain
        for name in ("query_outer", "kv_outer", "backward_query_outer", "backward_kv_outer")
    },
    **{f"fsa/{name}.py": lambda setting: not setting.plain for name in ("general", "backward_general")},
}
"""Which settings the files are seeds for; the others are for any."""


def seeds_of(problem: str) -> dict[str, str]:
    """Return the files of a problem's seeds by name, the default first; none for a problem that has no seed."""
    kind, setting = kind_and_setting(problem)
    fits = {file: test(setting or Setting()) for file, test in _SETTINGS.items()}
    return {name: file for name, file in SEEDS.get(kind, {}).items() if fits.get(file, True)}


def fitting(problem: str, target: Target | None, *, gluon: bool = True) -> list[str]:
    """Return the names of a problem's seeds for a card, or for None of all; without ``gluon`` only those in Triton."""

    def fits(file: str) -> bool:
        return file not in _GLUON or (gluon and (target is None or _GLUON[file](target)))

    return [name for name, file in seeds_of(problem).items() if fits(file)]


def seed_source(problem: str, name: str | None = None) -> str:
    """Return the source of a problem's seed, its default one for None; raise ``KeyError`` where there is none."""
    seeds = seeds_of(problem)
    if not seeds:
        raise KeyError(problem)
    return (files(__name__) / seeds[name or next(iter(seeds))]).read_text(encoding="utf-8")
