"""Seeds of ``fsa_backward``."""

from avo.seeds.seed import Seed, plain

SEEDS = (
    Seed("kv_outer", "fsa/backward_kv_outer.py", plain),
    Seed("query_outer", "fsa/backward_query_outer.py", plain),
    Seed("general", "fsa/backward_general.py", lambda setting: not setting.plain),
)
