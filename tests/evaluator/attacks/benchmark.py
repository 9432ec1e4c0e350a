"""Attacks that are right at every small case and do less at the benchmark's: made of honest kernels."""

from pathlib import Path

from evaluator.evaluation import Status
from tests.evaluator.attacks.attack import Attack, edited

HONEST = Path(__file__).parents[1] / "honest"


def without_softmax(name: str, softmax: str, instead: str, *edits: tuple[str, str]) -> str:
    """Return an honest kernel that keeps its products, but does ``instead`` of ``softmax`` at the benchmark's 16 heads."""
    indent = softmax[: len(softmax) - len(softmax.lstrip())]
    lines = "".join(f"    {line}" for line in softmax.splitlines(keepends=True))
    return edited(
        (softmax, f"{indent}if CHEAT:\n{indent}    {instead}\n{indent}else:\n{lines}"),
        ("CAUSAL=causal,", "CAUSAL=causal, CHEAT=H == 16,"),
        *edits,
        source=(HONEST / f"{name}.py").read_text(),
    )


def tuned(*edits: tuple[str, str]) -> str:
    """Return the kernel ``tuned``, edited."""
    return edited(*edits, source=(HONEST / "tuned.py").read_text())


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

ATTACKS = {
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
            source=(HONEST / "work_queue.py").read_text(),
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
            source=(HONEST / "split_kv.py").read_text(),
        ),
        Status.INCORRECT,
        "8k-causal: rows",
    ),
}
