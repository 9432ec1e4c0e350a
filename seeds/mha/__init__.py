"""Seeds of ``mha``, which work for any head mapping."""

from avo.seeds.seed import Seed, capped, of_the_paper, plain, unpadded

CAPPED = capped("attention_kernel", "tl.dot(q, tl.trans(k), of_rest) * scale", "q_len, kv_len, window,")
WIDE = (("block_m, block_n = 64, 64", "block_m, block_n = 32, 32"),)

SEEDS = (
    Seed("plain", "mha/plain.py", plain),
    # Blocks of descriptors are powers of two, and 256 dimensions do not fit with its tiles.
    Seed("tuned", "mha/tuned.py", lambda setting: setting.head_dim in (64, 128) and setting.plain),
    Seed("hopper", "mha/hopper.py", of_the_paper, lambda target: target.warpgroup_products),
    Seed("blackwell", "mha/blackwell.py", of_the_paper, lambda target: target.tensor_memory),
    # It takes rows of 96 and 192 elements in two parts.
    Seed("general", "mha/general.py", lambda setting: not unpadded(setting) and not setting.softcap),
    Seed("capped", "mha/general.py", lambda setting: setting.softcap > 0, edits=CAPPED),
    Seed("wide", "mha/general.py", lambda setting: setting.head_dim == 512 and setting.plain, edits=WIDE),
)
