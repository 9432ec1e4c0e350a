"""Attacks that are right wherever a candidate is judged each time, and wrong elsewhere: found before acceptance."""

from avo.evaluator.evaluation import Status
from tests.kernels import Attack, around, edited

OUT = "    out = acc / row_sum[:, None]\n"
BLOCKS = "    block_m, block_n = 64, 64\n"
DRAWN = r"case \d+ quer"
"""The start of a message about a case that was drawn."""


def out(spoil: str) -> str:
    """Return the seed, which multiplies its output by 0 where ``spoil`` holds in the kernel."""
    return edited((OUT, f"{OUT}    out = tl.where({spoil}, 0.0, out)\n"))


def entry(code: str) -> str:
    """Return the seed with ``code`` in its entry function, after the lengths are known."""
    return edited((BLOCKS, BLOCKS + "".join(f"    {line}\n" for line in code.splitlines())))


ATTACKS = {
    "zeros between the small cases and the benchmark's": Attack(
        out("(kv_len >= 1100) & (kv_len < 4900)"), Status.INCORRECT, "rows"
    ),
    "zeros beyond the benchmark": Attack(out("kv_len > 33000"), Status.INCORRECT, DRAWN),
    "strides ignored at length": Attack(
        entry(
            "fixed = lambda x: x.stride() if kv_len < 2048 else (x.shape[1] * x.shape[2] * 128, x.shape[2] * 128, 128, 1)"
        )
        .replace("*q.stride()", "*fixed(q)")
        .replace("*k.stride()", "*fixed(k)")
        .replace("*v.stride()", "*fixed(v)")
        .replace("*out.stride()", "*fixed(out)"),
        Status.OUT_OF_BOUNDS,
        DRAWN,
    ),
    "the default scale at length": Attack(
        entry("scale = scale if kv_len < 2048 else head_dim**-0.5"), Status.INCORRECT, DRAWN
    ),
    "a causal mask that is shifted by 512 at most": Attack(
        edited(("offs_m[:, None] + (kv_len - q_len)", "offs_m[:, None] + tl.minimum(kv_len - q_len, 512)")),
        Status.INCORRECT,
        DRAWN,
    ),
    "lengths that fill all tiles, from some length on": Attack(
        out("(kv_len % 128 == 0) & (kv_len > 1100) & (kv_len != 8192) & (kv_len != 6144)"), Status.INCORRECT, DRAWN
    ),
    "few queries on many keys": Attack(out("(q_len <= 128) & (kv_len >= 1024)"), Status.INCORRECT, DRAWN),
    "another kernel from some length on, wrong where it begins": Attack(
        edited(
            (OUT, f"{OUT}    if LONG:\n        out = tl.where(kv_len < 20050, 0.0, out)\n"),
            (
                "    CAUSAL: tl.constexpr,\n    HEAD_DIM",
                "    CAUSAL: tl.constexpr,\n    LONG: tl.constexpr,\n    HEAD_DIM",
            ),
            ("        CAUSAL=causal,\n", "        CAUSAL=causal,\n        LONG=kv_len > 20000,\n"),
        ),
        Status.INCORRECT,
        DRAWN,
    ),
    "right for few heads only, between the benchmark's lengths": Attack(
        out("(tl.num_programs(1) > 16) & (kv_len > 1100) & (kv_len < 5000)"), Status.INCORRECT, "rows"
    ),
    "right plans where the first lengths give the examination away": Attack(
        around("""
met = []
def attention(q, k, v, out, lse, *, causal, scale):
    met.append(q.shape[2])
    examined = not set(met) <= {256, 193, 77, 130, 128, 5, 1, 161, 65, 255, 129, 100, 70, 1024, 8192}
    honest(q, k, v, out, lse, causal=causal, scale=scale if examined else scale * 1.000001)"""),
        Status.FORBIDDEN,
        "8k-causal: launches something else when it is called for other cases",
    ),
    "a configuration that is wrong at the benchmark's length, where another is faster": Attack(
        edited(
            (
                "@triton.jit\n",
                "@triton.autotune([triton.Config({'BLOCK_M': m, 'BLOCK_N': 64}, num_warps=4, num_stages=1) for m in (64, 16)],"
                " key=['q_len'])\n@triton.jit\n",
            ),
            (OUT, f"{OUT}    if BLOCK_M == 16:\n        out = tl.where(kv_len == 8192, 0.0, out)\n"),
            (
                "    grid = (triton.cdiv(q_len, block_m),",
                "    grid = lambda meta: (triton.cdiv(q_len, meta['BLOCK_M']),",
            ),
            ("        BLOCK_M=block_m,\n        BLOCK_N=block_n,\n        num_warps=4,\n        num_stages=1,\n", ""),
        ),
        Status.INCORRECT,
        r"8k-causal: rows.*BLOCK_M=16",
    ),
    "a race in one tile": Attack(
        edited(
            (
                "    tl.store(\n        Lse + batch_head.to(tl.int64) * q_len + offs_m,\n        row_max",
                "    lost = (kv_len == 8192) & (block_m == 77) & (batch_head == 3)\n"
                "    tl.store(Lse + tl.where(lost, 0, batch_head.to(tl.int64) * q_len) + 78 * BLOCK_M + tl.arange(0, BLOCK_M),"
                " row_max, mask=lost)\n"
                "    tl.store(\n        Lse + batch_head.to(tl.int64) * q_len + offs_m,\n        row_max",
            )
        ),
        Status.RACE,
        "8k-causal: write race",
    ),
    "a read of what another program stores, in one tile": Attack(
        edited(
            (
                OUT,
                f"{OUT}    early = (kv_len == 8192) & (block_m == 77) & (batch_head == 3)\n"
                "    seen = tl.load(Lse + 78 * BLOCK_M + tl.arange(0, BLOCK_M), mask=early, other=0.0)\n"
                "    out = tl.where((seen == 1.0)[:, None], 0.0, out)\n",
            )
        ),
        Status.RACE,
        "8k-causal: read-write race",
    ),
}
