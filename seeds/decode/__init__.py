"""Seeds of ``decode``."""

from avo.seeds.seed import Seed, capped

CAPPED = capped("part_kernel", "tl.dot(q, k) * scale", "q_len, window,")
WIDE = (
    ("num_warps=4, num_stages=2", "num_warps=4, num_stages=1"),
    ("block_table.shape[1], 64", "block_table.shape[1], 32"),
)

SEEDS = (
    Seed("split", "decode/split.py", lambda setting: not setting.softcap and setting.head_dim < 512),
    Seed("capped", "decode/split.py", lambda setting: setting.softcap > 0, edits=CAPPED),
    Seed("wide", "decode/split.py", lambda setting: not setting.softcap and setting.head_dim == 512, edits=WIDE),
)
