"""Seeds of ``fsa``."""

from avo.evaluator.setting import Setting
from avo.seeds.seed import Seed, of_the_paper, plain


def _large_groups(setting: Setting) -> bool:
    """Whether the tiles of neighbouring positions are full: those of small groups have more positions than a word."""
    return of_the_paper(setting) and setting.heads is not None and setting.heads[0] >= 8 * setting.heads[1]


SEEDS = (
    Seed("query_outer", "fsa/query_outer.py", plain),
    Seed("kv_outer", "fsa/kv_outer.py", plain),
    Seed("general", "fsa/general.py", lambda setting: not setting.plain),
    Seed("query_union", "fsa/query_union.py"),
    Seed("hopper", "fsa/hopper.py", _large_groups, lambda target: target.warpgroup_products),
    Seed("blackwell", "fsa/blackwell.py", _large_groups, lambda target: target.tensor_memory),
)
