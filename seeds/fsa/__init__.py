"""Seeds of ``fsa``."""

from avo.seeds.seed import Seed, plain

SEEDS = (
    Seed("query_outer", "fsa/query_outer.py", plain),
    Seed("kv_outer", "fsa/kv_outer.py", plain),
    Seed("general", "fsa/general.py", lambda setting: not setting.plain),
    Seed("query_union", "fsa/query_union.py"),
)
