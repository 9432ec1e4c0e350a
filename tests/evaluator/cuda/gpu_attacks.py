"""Candidates whose kernels only a GPU shows for what they are: each is the seed, and then something else."""

from avo.evaluator.problem import Case
from avo.seeds import seed_source
from tests.kernels import around, edited

SEED = seed_source("mha")
SECOND = """
import torch


@triton.jit
def second(Out, Q, Scratch, FAR: tl.constexpr, WHAT: tl.constexpr):
{body}


def attention(q, k, v, out, lse, *, causal, scale):
    scratch = torch.zeros(64, dtype=torch.int32, device=q.device)
    honest(q, k, v, out, lse, causal=causal, scale=scale)
    second[(1,)](out, q, scratch, FAR={far}, WHAT=1)
"""


def then(body: str, far: int = 0) -> str:
    """Return the seed, followed by a launch of one program that does ``body``."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return around(SECOND.format(body=lines, far=far))


HANGS = then("while tl.atomic_add(Scratch, 0) == 0:\n    pass")
WRITES_JUST_BESIDE = then("tl.store(Out - 1, 0.0)")
WRITES_FAR_AWAY = then("tl.store(Out + FAR, 0.0)", far=2**44)
READS_FAR_AWAY = then("tl.store(Out, tl.load(Out + FAR))", far=2**44)
WRITES_AN_INPUT = then("tl.store(Q, 0.0)")
SPOILS_ONE_ROW = then("tl.store(Out + 128 * 1000 + tl.arange(0, 128), tl.full([128], 7.0, tl.bfloat16))")
LEAVES_NAN = then("tl.store(Out + 5, float('nan'))")
COUNTS_ITS_CALLS = then(
    """
calls = tl.atomic_add(Scratch + 2**17, 1)  # behind the guards, where nobody looks
if calls % 32 > 24:
    tl.store(Out + tl.arange(0, 128)[:, None] * 128 + tl.arange(0, 128), tl.zeros([128, 128], tl.bfloat16))
""".strip()
)
"""What the count starts from is not known: within 32 calls there are some that are not honest."""
KEEPS_IN_L2 = SEED.replace("other=0.0,", 'other=0.0, eviction_policy="evict_last",')
STARTS_EARLY = edited(("        num_warps=4,\n", "        num_warps=4,\n        launch_pdl=True,\n"))
FITS_IN_L2 = Case("l2-full", 1, 8, 8, 2048, 2048, 128, False)
"""Where lines kept in the L2 cache could be of use."""
