"""Seeds of ``decode``."""

from avo.seeds.seed import Seed, capped

CAPPED = capped("part_kernel", "tl.dot(q, k) * scale", "q_len, window,")

SEEDS = (
    Seed("split", "decode/split.py", lambda setting: not setting.softcap),
    Seed("capped", "decode/split.py", lambda setting: setting.softcap > 0, edits=CAPPED),
)
