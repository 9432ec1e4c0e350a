"""Seeds of ``fsa_backward``."""

from avo.seeds.seed import Seed, plain

SEEDS = (
    Seed("kv_outer", "fsa_backward/kv_outer.py", plain),
    Seed("query_outer", "fsa_backward/query_outer.py", plain),
    Seed("general", "fsa_backward/general.py", lambda setting: not setting.plain),
    Seed("query_union", "fsa_backward/query_union.py"),
)
