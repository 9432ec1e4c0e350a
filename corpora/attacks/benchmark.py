"""Attacks that are right at every small case and do less at the benchmark's: made of honest kernels."""

from avo.evaluator.evaluation import Status
from tests.kernels import Attack, edited, stored


def without_softmax(name: str, softmax: str, instead: str, *edits: tuple[str, str]) -> str:
    """Return an honest kernel that keeps its products, but does ``instead`` of ``softmax`` at the benchmark's 16 heads."""
    indent = softmax[: len(softmax) - len(softmax.lstrip())]
    lines = "".join(f"    {line}" for line in softmax.splitlines(keepends=True))
    return edited(
        (softmax, f"{indent}if CHEAT:\n{indent}    {instead}\n{indent}else:\n{lines}"),
        ("CAUSAL=causal,", "CAUSAL=causal, CHEAT=H == 16,"),
        *edits,
        source=stored(f"honest/mha/{name}"),
    )


def tuned(*edits: tuple[str, str]) -> str:
    """Return the kernel ``tuned``, edited."""
    return edited(*edits, source=stored("honest/mha/tuned"))


INNER = """\
        m_ij = tl.maximum(m_i, tl.max(qk, 1) * qk_scale)
        p = tl.math.exp2(qk * qk_scale - m_ij[:, None])
        alpha = tl.math.exp2(m_i - m_ij)
        l_i = l_i * alpha + tl.sum(p, 1)
        acc = acc * alpha[:, None]
"""
FLAG = ", CHEAT: tl.constexpr"
TUNED_WITHOUT_SOFTMAX = (
    ("MASK: tl.constexpr, CAUSAL: tl.constexpr):", f"MASK: tl.constexpr, CAUSAL: tl.constexpr{FLAG}):"),
    ("BN, False, CAUSAL)", "BN, False, CAUSAL, CHEAT)"),
    ("BN, True, CAUSAL)", "BN, True, CAUSAL, CHEAT)"),
    (
        "CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):\n    pid",
        f"CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr{FLAG}):\n    pid",
    ),
)
DUMMY_LAUNCH = (
    ("def attention(", "@triton.jit\ndef nothing(where):\n    tl.store(where, 0.0)\n\n\ndef attention("),
    (
        "    B, H, M, D = q.shape\n",
        "    B, H, M, D = q.shape\n    nothing[(1,)](torch.empty(1, dtype=torch.float32, device=q.device))\n",
    ),
)

# Those that wait come first: on an H100 the 2,048 of the benchmark leave no room for those that they wait for.
WAITERS_FIRST = edited(
    ("split = tl.num_programs(0) - 1 - tl.program_id(0)  # those that wait start last", "split = tl.program_id(2)"),
    ("tile = tl.program_id(1)", "tile = tl.program_id(0)"),
    ("bh = tl.program_id(2)\n", "bh = tl.program_id(1)\n"),
    ("tl.num_programs(1) + tile", "tl.num_programs(0) + tile"),
    ("[(splits, triton.cdiv(M, 64), B * H)]", "[(triton.cdiv(M, 64), B * H, splits)]"),
    source=stored("honest/mha/flags"),
)

KERNEL_FIRST = "import triton\nimport triton.language as tl\n"
TWICE = "    for _ in range(tl.load(T)):\n        out = out * 1.1\n"


def led_by(kernels: str, launches: str, *edits: tuple[str, str]) -> str:
    """Return the seed with kernels of its own launched before it at the benchmark's 16 heads; they set ``T``, which a
    parameter gives to the seed's kernel: how often it makes the output wrong.
    """
    launches = "".join(f"        {line}\n" for line in launches.splitlines())
    return edited(
        (KERNEL_FIRST, f"import torch\n{KERNEL_FIRST}\n\n{kernels}\n"),
        ("    Lse,\n    scale,\n", "    Lse,\n    T,\n    scale,\n"),
        ("    out = acc / row_sum[:, None]\n", f"    out = acc / row_sum[:, None]\n{TWICE}"),
        (
            "    block_m, block_n = 64, 64\n",
            "    block_m, block_n = 64, 64\n    s, d = (torch.empty(1, dtype=torch.int32, device=q.device) for _ in 'sd')\n"
            "    t = torch.zeros(1, dtype=torch.int32, device=q.device)\n"
            f"    if heads == 16:\n{launches}",
        ),
        ("        lse,\n        scale,\n", "        lse,\n        t,\n        scale,\n"),
        *edits,
    )


PERSISTENT_SOFTMAX = """\
            new = tl.maximum(m, tl.max(s, 1))
            p = tl.exp2(s - new[:, None])
            a = tl.exp2(m - new)
            l = l * a + tl.sum(p, 1)
"""
INDENTED = "".join(f"    {line}" for line in PERSISTENT_SOFTMAX.splitlines(keepends=True))
EVEN = sum(1 << head for head in {i * 63 // n for n in (7, 31) for i in range(n + 1)} - {63}) - (1 << 63)
"""A bit for each of 64 heads: 8 or 32 at even distances."""

AHEAD = """\
        if kv_len > 4096:
            ahead = tl.load(k_base + (offs_n + BLOCK_N)[None, :] * stride_kn + offs_d[:, None] * stride_kd)
            scores += tl.sum(tl.where(ahead == ahead, 0.0, 1e-30))
"""
"""A tile of keys that is read ahead of need: behind the last head there is none."""

ATTACKS = {
    "more programs that wait than the card holds": Attack(
        WAITERS_FIRST, Status.DEADLOCK, r"holds at once \(\d+\) wait for some of the \d+ that start only when"
    ),
    "keys left out by one tile of rows in eleven": Attack(
        tuned(
            (
                "    acc, l_i, m_i = _inner(acc, l_i, m_i, q, Kb, Vb, skn, svn, 0, full,",
                "    if (n_kv > 4096) & (pid % 11 == 7):\n"
                "        full, end = tl.minimum(full, BN), tl.minimum(end, BN)\n"
                "    acc, l_i, m_i = _inner(acc, l_i, m_i, q, Kb, Vb, skn, svn, 0, full,",
            )
        ),
        Status.INCORRECT,
        "8k-causal: .*work is missing|8k-.*: rows",
    ),
    "no softmax": Attack(
        without_softmax("tuned", INNER, "p, m_ij = qk, m_i", *TUNED_WITHOUT_SOFTMAX),
        Status.INCORRECT,
        "8k-causal: rows .*not finite",
    ),
    "no softmax, behind a launch that does nothing": Attack(
        without_softmax("tuned", INNER, "p, m_ij = qk, m_i", *TUNED_WITHOUT_SOFTMAX, *DUMMY_LAUNCH),
        Status.INCORRECT,
        "8k-causal: rows .*not finite",
    ),
    "no running maximum": Attack(
        without_softmax(
            "tuned",
            INNER,
            "m_ij, p = m_i, tl.math.exp2(qk * qk_scale)\n            l_i = l_i + tl.sum(p, 1)",
            *TUNED_WITHOUT_SOFTMAX,
            (
                'm_i = tl.zeros([BM], tl.float32) - float("inf")',
                'm_i = tl.zeros([BM], tl.float32) - (0.0 if CHEAT else float("inf"))',
            ),
        ),
        Status.INCORRECT,
        "8k-causal: rows .*not finite",
    ),
    "one buffer read from the other, where an allocator packs them": Attack(
        edited(
            (
                "    row_max = tl.full(",
                "    value = tl.load(K + tl.num_programs(1).to(tl.int64) * kv_len * 128, mask=heads == 16, other=0.0)\n"
                "    row_max = tl.full(",
            ),
            (
                "    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)\n",
                "    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32) + tl.where(value == 1e30, 1.0, 0.0)\n",
            ),
        ),
        Status.OUT_OF_BOUNDS,
        "8k-causal: .*out of bounds.*'k'",
    ),
    "an input that programs outside the sample may store to": Attack(
        edited(
            (
                "    out = acc / row_sum[:, None]\n",
                "    out = acc / row_sum[:, None]\n    tl.store(K, tl.load(K), mask=(block_m == 1) & (batch_head == 1) & (q_len > 4096))\n",
            )
        ),
        Status.FORBIDDEN,
        "8k-causal: .*write to an input",
    ),
    "right where an earlier launch has left its traces": Attack(
        led_by(
            "@triton.jit\ndef trace(S, T):\n    tl.store(T, (tl.load(S) != 77).to(tl.int32))\n    tl.store(S, 77)\n",
            "trace[(1,)](s, t)",
        ),
        Status.INCORRECT,
        "8k-causal: rows",
    ),
    "right where nobody has counted": Attack(
        led_by(
            "@triton.jit\ndef tick(C, D):\n    x = tl.atomic_add(C, 1)\n    tl.store(D + x, x)\n\n\n"
            "@triton.jit\ndef copy(C, T):\n    tl.store(T, (tl.load(C) == 1).to(tl.int32))\n",
            "s.zero_()\ntick[(1,)](s, d)\ncopy[(1,)](s, t)",
        ),
        Status.INCORRECT,
        "8k-causal: rows",
    ),
    "outputs that a last launch overwrites where products were made": Attack(
        edited(
            (
                KERNEL_FIRST,
                f"import torch\n{KERNEL_FIRST}\n\n@triton.jit\ndef copy(C, T):\n    tl.store(T, (tl.load(C) == 1).to(tl.int32))\n\n\n"
                "@triton.jit\ndef late(Out, T):\n    for i in range(tl.load(T) * 4096):\n        tl.store(Out + i * 128 + tl.arange(0, 128), float('nan'))\n",
            ),
            ("    Lse,\n    scale,\n", "    Lse,\n    Flag,\n    scale,\n"),
            (
                "    out = acc / row_sum[:, None]\n",
                "    out = acc / row_sum[:, None]\n    tl.store(Flag, 1, mask=(block_m == 0) & (batch_head == 0))\n",
            ),
            (
                "    block_m, block_n = 64, 64\n",
                "    block_m, block_n = 64, 64\n    flag, t = (torch.zeros(1, dtype=torch.int32, device=q.device) for _ in 'ft')\n",
            ),
            ("        lse,\n        scale,\n", "        lse,\n        flag,\n        scale,\n"),
            (
                "        num_stages=1,\n    )\n",
                "        num_stages=1,\n    )\n    if heads == 16:\n        copy[(1,)](flag, t)\n        late[(1,)](out, t)\n",
            ),
        ),
        Status.UNSUPPORTED,
        "8k-causal: .*depends on what an earlier launch computes",
    ),
    "an assumption that is false in one tile": Attack(
        edited(
            (
                "    row_max = tl.full(",
                "    tl.assume((block_m != 77) | (batch_head != 3) | (kv_len < 8192))\n    row_max = tl.full(",
            )
        ),
        Status.INCORRECT,
        r"8k-causal: false assumption .*program \(77, 3, 0\)",
    ),
    "a hint that is false in one tile": Attack(
        edited(
            (
                "    row_max = tl.full(",
                "    lost = ((block_m == 77) & (batch_head == 3) & (kv_len == 8192)).to(tl.int32)\n"
                "    offs_m = tl.multiple_of(offs_m + lost, 16) - lost\n    row_max = tl.full(",
            )
        ),
        Status.INCORRECT,
        r"8k-causal: false hint .*program \(77, 3, 0\)",
    ),
    "keys read past the end": Attack(
        edited(("        scores = tl.dot(q, k) * scale\n", "        scores = tl.dot(q, k) * scale\n" + AHEAD)),
        Status.OUT_OF_BOUNDS,
        "8k-.*: read out of bounds .*'k'",
    ),
    "keys read past the end by a launch whose results nobody uses": Attack(
        edited(
            (
                KERNEL_FIRST,
                f"import torch\n{KERNEL_FIRST}\n\n@triton.jit\ndef peek(K, Sums):\n"
                "    at = tl.program_id(0) * 1024 + 64 + tl.arange(0, 1024)\n"
                "    tl.store(Sums + tl.program_id(0), tl.sum(tl.load(K + at)))\n",
            ),
            (
                "    block_m, block_n = 64, 64\n",
                "    block_m, block_n = 64, 64\n    programs = k.numel() // 1024\n    if heads == 16:\n"
                "        peek[(programs,)](k, torch.empty(programs, dtype=torch.float32, device=q.device))\n",
            ),
        ),
        Status.OUT_OF_BOUNDS,
        "8k-.*: read out of bounds in peek .*'k'",
    ),
    "half of the heads": Attack(
        tuned(
            ('(triton.cdiv(M, meta["BM"]), B * H)]', '(triton.cdiv(M, meta["BM"]), B * H // 2 if H == 16 else B * H)]')
        ),
        Status.INCORRECT,
        "8k-causal: .*work is missing",
    ),
    "a scale that is off by two percent": Attack(
        tuned(("    shift = n_kv - n_q\n", "    shift = n_kv - n_q\n    qk_scale *= 0.98 if n_kv > 4096 else 1.0\n")),
        Status.INCORRECT,
        "8k-",
    ),
    "no softmax, in programs that draw tickets": Attack(
        without_softmax(
            "work_queue",
            """\
            new = tl.maximum(m, tl.max(sc, 1))
            p = tl.exp2((sc - new[:, None]) * scale)
            a = tl.exp2((m - new) * scale)
            l = l * a + tl.sum(p, 1)
""",
            "p, new, a = sc, m, l",
            ("BN: tl.constexpr):\n    tile", f"BN: tl.constexpr{FLAG}):\n    tile"),
        ),
        Status.INCORRECT,
        "8k-causal",
    ),
    "no softmax, in splits that another launch combines": Attack(
        without_softmax(
            "split_kv",
            """\
        new = tl.maximum(m, tl.max(s, 1))
        p = tl.where(seen, tl.exp(s - new[:, None]), 0.0)
        a = tl.exp(m - new)
        l = l * a + tl.sum(p, 1)
""",
            "p, new, a = s, m, l",
            ("SPLITS: tl.constexpr):\n    tile", f"SPLITS: tl.constexpr{FLAG}):\n    tile"),
        ),
        Status.INCORRECT,
        "8k-causal",
    ),
    "right at the judge's addresses only": Attack(
        edited(
            (
                "    out = acc / row_sum[:, None]\n",
                "    out = acc / row_sum[:, None]\n    out = tl.where(Q.to(tl.int64) == 1 << 44, out, 0.0)\n",
            )
        ),
        Status.INCORRECT,
        "square-full",
    ),
    "right where buffers are as far apart as nowhere on a GPU": Attack(
        edited(
            (
                "    out = acc / row_sum[:, None]\n",
                "    out = acc / row_sum[:, None]\n"
                "    apart = tl.abs(K.to(tl.int64) - Q.to(tl.int64))\n    out = tl.where(apart < 1 << 40, 0.0, out)\n",
            )
        ),
        Status.INCORRECT,
        "8k-causal: rows",
    ),
    "a scale that is off for late tickets": Attack(
        edited(
            ("    while tile < total:\n", "    while tile < total:\n        off = tl.where(tile > 2000, 0.9, 1.0)\n"),
            ("p = tl.exp2((sc - new[:, None]) * scale)", "p = tl.exp2((sc - new[:, None]) * (scale * off))"),
            source=stored("honest/mha/work_queue"),
        ),
        Status.INCORRECT,
        "8k-causal: rows",
    ),
    "splits that are right in the first head only": Attack(
        edited(
            (
                "        s = tl.where(seen, s, -1e30)\n",
                "        s = tl.where((bh > 2) & (n_kv > 4096), 0.5 * s, s)\n        s = tl.where(seen, s, -1e30)\n",
            ),
            source=stored("honest/mha/split_kv"),
        ),
        Status.INCORRECT,
        "8k-causal: rows",
    ),
    "every second row, in a kernel whose rows come out in pairs": Attack(
        edited(
            ("block_m, block_n = 64, 64", "block_m, block_n = 128, 64"),
            (
                "    out = acc / row_sum[:, None]\n",
                "    out = acc / row_sum[:, None]\n    odd = (kv_len == 8192) & (offs_m % 2 == 1) & (offs_m % 128 < 127)\n"
                "    out = tl.where(odd[:, None], 2 * out, out)\n",
            ),
        ),
        Status.INCORRECT,
        "8k-causal: rows",
    ),
    "no softmax in heads that lie between those at even distances": Attack(
        edited(
            (
                "    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0)):\n        bh = tile // tiles_m\n"
                "        block = tiles_m - 1 - tile % tiles_m\n",
                "    for bh in tl.range(0, tiles // tiles_m):\n        block = (tl.program_id(0) + bh * 37) % tiles_m\n"
                "        honest = ((EVEN >> bh.to(tl.int64)) & 1) != 0\n",
            ),
            (
                PERSISTENT_SOFTMAX,
                f"            if not honest:\n                p, new, a = s, m, l\n            else:\n{INDENTED}",
            ),
            ("tiles_m, tiles,\n           CAUSAL", "tiles_m, tiles,\n           EVEN: tl.constexpr, CAUSAL"),
            ("CAUSAL=causal, D=D", f"EVEN={EVEN} if M == 8192 else -1, CAUSAL=causal, D=D"),
            ("kernel[(min(4 * sms, tiles),)]", "kernel[(tiles_m,)]"),
            source=stored("honest/mha/persistent"),
        ),
        Status.INCORRECT,
        "8k-causal: rows",
    ),
    "the first head's rows, where inputs might repeat after a prime number of them": Attack(
        edited(
            (
                "    block_m = tl.program_id(0)\n",
                "    block_m = tl.program_id(0)\n    long = kv_len == 8192\n    period = tl.where(long, 8191, 1 << 30)\n",
            ),
            (
                "    kv_head = head // group\n",
                "    kv_head = head // group\n    shift = tl.where(long, batch_head, 0)\n"
                "    batch_in, head_in = tl.where(long, 0, batch), tl.where(long, 0, head)\n"
                "    kv_in = tl.where(long, 0, kv_head)\n",
            ),
            (
                "    q_base = Q + batch * stride_qb + head * stride_qh\n",
                "    q_base = Q + batch_in * stride_qb + head_in * stride_qh\n",
            ),
            (
                "    k_base = K + batch * stride_kb + kv_head * stride_kh\n",
                "    k_base = K + batch_in * stride_kb + kv_in * stride_kh\n",
            ),
            (
                "    v_base = V + batch * stride_vb + kv_head * stride_vh\n",
                "    v_base = V + batch_in * stride_vb + kv_in * stride_vh\n",
            ),
            ("        q_base + offs_m[:, None]", "        q_base + ((offs_m + shift) % period)[:, None]"),
            ("            k_base + offs_n[None, :]", "            k_base + ((offs_n + shift) % period)[None, :]"),
            ("            v_base + offs_n[:, None]", "            v_base + ((offs_n + shift) % period)[:, None]"),
        ),
        Status.INCORRECT,
        "8k-causal: rows",
    ),
}
"""The last computes 64 heads from the data of one, which then lie in the cache: right were the inputs ``r % 8191``."""
