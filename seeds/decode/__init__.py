"""Seeds of ``decode``."""

from avo.seeds.seed import Seed

SEEDS = (Seed("split", "decode/split.py"),)
