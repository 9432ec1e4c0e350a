"""Mutants of the honest kernels, by the kernel's name and what is wrong with them: faults that the seed has no room for."""

from avo.evaluator.evaluation import Status
from avo.evaluator.problems.mutant import Mutant, one

EMPTY_COUNT = "torch.zeros((B * H * tiles,), dtype=torch.int32, device=q.device)"
NOTHING_ORDERED = r"race in one_launch at candidate\.py:\d+"

MUTANTS = {
    ("persistent", "accumulators kept from tile to tile"): Mutant(
        (
            (
                '        m = tl.full([BM], float("-inf"), tl.float32)\n        l = tl.zeros([BM], tl.float32)\n'
                "        acc = tl.zeros([BM, D], tl.float32)\n",
                "",
            ),
            (
                "    for tile in",
                '    m = tl.full([BM], float("-inf"), tl.float32)\n    l = tl.zeros([BM], tl.float32)\n'
                "    acc = tl.zeros([BM, D], tl.float32)\n    for tile in",
            ),
            ("(min(4 * sms, tiles),)", "(min(2, tiles),)"),
        ),
        "square-full: rows",
    ),
    ("persistent", "tiles beyond the second round left out"): one(
        "tl.range(tl.program_id(0), tiles,",
        "tl.range(tl.program_id(0), tl.minimum(tiles, 2 * tl.num_programs(0)),",
        "8k-.*work is missing",
    ),
    ("tuned", "one block too many without a mask"): one(
        "full = (pid * BM + shift + 1) // BN * BN", "full = (pid * BM + shift + BN) // BN * BN", "-causal: rows"
    ),
    ("tuned", "one percent off at long lengths"): one(
        "    acc = acc / l_i", "    acc = acc * tl.where(n_kv > 4096, 0.99, 1.0)\n    acc = acc / l_i", "8k-causal: "
    ),
    ("tuned", "scaled before the maximum and after"): one(
        "tl.max(qk, 1) * qk_scale", "tl.max(qk, 1) * qk_scale * qk_scale", "large-full: rows|rising-full: rows"
    ),
    ("split_kv", "partial sums combined before they are there"): Mutant(
        (
            (
                "    partial[(triton",
                "    combine[(M, B * H)](p, m, l, out, lse, *out.stride()[:3], H, M, D=D, SPLITS=splits)\n"
                "    partial[(triton",
            ),
            (
                "    combine[(M, B * H)](p, m, l, out, lse, *out.stride()[:3], H, M, D=D, SPLITS=splits, num_warps=1)\n",
                "",
            ),
        ),
        r"read of uninitialised memory in combine at candidate\.py:\d+",
    ),
    ("split_kv", "splits weighted alike"): one(
        "w = tl.exp(m - top)", "w = tl.exp(0.0 * (m - top))", "square-full: rows"
    ),
    ("split_kv", "splits that overlap"): one(
        "end = tl.minimum(start + per_split, n_kv)",
        "end = tl.minimum(start + per_split + 1, n_kv)",
        "square-full: rows",
    ),
    ("split_kv", "splits that leave a gap"): one(
        "triton.cdiv(triton.cdiv(N, splits), 64) * 64", "(N // splits) // 64 * 64", "rows"
    ),
    ("split_kv", "all splits in one place"): one(
        "(bh.to(tl.int64) * SPLITS + split) * n_q + rows",
        "bh.to(tl.int64) * n_q + rows",
        r"write race in partial at candidate\.py:\d+",
        Status.RACE,
    ),
    ("two_pass", "lse without the causal mask"): one(
        "        s = tl.where(ok, s, -float('inf'))\n", "", "-causal: rows"
    ),
    ("two_pass", "the second kernel first"): Mutant(
        (
            ("    logsumexp_kernel[grid](q, k, lse", "    later = lambda: logsumexp_kernel[grid](q, k, lse"),
            (
                "*out.stride()[:-1], scale, H, Sq, Sk, **cfg)",
                "*out.stride()[:-1], scale, H, Sq, Sk, **cfg)\n    later()",
            ),
        ),
        r"read of uninitialised memory in output_kernel at candidate\.py:\d+.*'lse'",
    ),
    ("work_queue", "the counter never cleared"): one(
        "torch.zeros(1, dtype", "torch.empty(1, dtype", r"read of uninitialised memory in queue at candidate\.py:\d+"
    ),
    ("work_queue", "the first ticket lost"): one(
        "torch.zeros(1, dtype", "torch.ones(1, dtype", "square-full: .*never written", Status.UNWRITTEN
    ),
    ("work_queue", "a counter that is no atomic"): Mutant(
        (
            (
                "    tile = tl.atomic_add(counter, 1)\n    while",
                "    tile = tl.load(counter)\n    tl.store(counter, tile + 1)\n    while",
            ),
        ),
        r"race in queue at candidate\.py:\d+",
        Status.RACE,
    ),
    ("last_split_combines", "nothing orders the partial results"): one(
        'sem="acq_rel", scope="gpu"', 'sem="relaxed", scope="gpu"', NOTHING_ORDERED, Status.RACE
    ),
    ("last_split_combines", "ordered within a block of threads only"): one(
        'scope="gpu"', 'scope="cta"', NOTHING_ORDERED, Status.RACE
    ),
    ("last_split_combines", "counts kept from before"): one(
        EMPTY_COUNT,
        EMPTY_COUNT.replace("zeros", "empty"),
        r"read of uninitialised memory in one_launch at candidate\.py:\d+",
    ),
    ("last_split_combines", "all splits combine"): one(
        "if done == SPLITS - 1:", "if done >= 0:", NOTHING_ORDERED, Status.RACE
    ),
    ("atomic_split", "sums never cleared"): one(
        "acc = torch.zeros((B, H, M, D)",
        "acc = torch.empty((B, H, M, D)",
        r"read of uninitialised memory in (add_values|finish)",
    ),
    ("atomic_split", "values added twice"): one(
        "    finish[(tiles",
        "    add_values[(tiles, B * H, 2)](q, k, v, lse2, acc, q.stride(), k.stride(), v.stride(), H, M, N, c, per, **opts)\n"
        "    finish[(tiles",
        "square-full: rows",
    ),
    ("lazy_rescale", "rescaled when exponentials have overflowed"): one(
        "tl.constexpr(8.0)", "tl.constexpr(200.0)", "rows .* are not finite"
    ),
    ("lazy_rescale", "the sum left as it was"): one(
        "            l = l * f\n", "", "square-full: rows|dominant|causal: rows"
    ),
    ("host_descriptors", "the last block not masked unless causal"): one(
        "if (j + 1) * BN > Sk or (CAUSAL and", "if (CAUSAL and", "full|one-query"
    ),
    ("host_descriptors", "descriptors with another row stride"): one(
        "list(t.stride()), [1, 1, rows, D]",
        "[*t.stride()[:2], D, 1], [1, 1, rows, D]",
        r"odd-causal: write race in fa at candidate\.py:\d+.*'out'",
        Status.RACE,
    ),
    ("flattened_loop", "the state kept where a tile begins"): one("if block == 0:", "if step == 0:", "rows"),
    ("launch_per_batch", "the last batch left out"): one(
        "in zip(*(t.unbind(0) for t in (q, k, v, out, lse))):",
        "in [*zip(*(t.unbind(0) for t in (q, k, v, out, lse)))][:-1]:",
        "never written",
        Status.UNWRITTEN,
    ),
    ("lse_afterwards", "the sum read as the maximum"): one(
        "*scratch, lse,", "scratch[0], scratch[0], lse,", "lse is off"
    ),
    ("lse_afterwards", "scratch of half the size"): one(
        "(2, B, H, M), dtype",
        "(2, B, H, M // 2 + 1), dtype",
        r"write out of bounds in main_kernel at candidate\.py:\d+",
        Status.OUT_OF_BOUNDS,
    ),
    ("while_loop", "the first block never reached"): one("while n >= 0:", "while n > 0:", "square-full: rows"),
    ("polynomial_exp", "a polynomial of degree 2"): Mutant(
        (
            ("    y = C5\n", ""),
            (
                "    y = tl.fma(tl.zeros_like(f) + y, f, C4)\n    y = tl.fma(y, f, C3)\n    y = tl.fma(y, f, C2)\n"
                "    y = tl.fma(y, f, C1)\n    y = tl.fma(y, f, C0)\n",
                "    y = 1.0 + f * (0.6565 + f * 0.3435)\n",
            ),
        ),
        "square-full",
    ),
    ("heuristics", "lengths taken for even"): one(
        'args["n_k"] % args["BN"] == 0',
        'args["n_k"] % 2 == 0',
        r"read out of bounds in flash at candidate\.py:\d+.*'k'",
        Status.OUT_OF_BOUNDS,
    ),
}
