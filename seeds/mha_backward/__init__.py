"""Seeds of ``mha_backward``, which work for any head mapping."""

from avo.seeds.seed import Seed, unpadded

SEEDS = (
    Seed("plain", "mha_backward/plain.py", unpadded),
    # It takes rows of 96 and 192 elements in two parts.
    Seed("general", "mha_backward/general.py", lambda setting: not unpadded(setting)),
)
