"""Attacks by kernels: work hidden from who counts it, memory that is not theirs, launches by other ways."""

from avo.evaluator.evaluation import Status
from tests.kernels import Attack, around, before, edited, stored, within

KEYS = "range(0, kv_len, BLOCK_N)"
STORE = "    out = acc / row_sum[:, None]\n"
PROLOGUE = "    block_m = tl.program_id(0)\n"
LAUNCH = "    attention_kernel[grid]("

WORK = {
    "a loop that never ends": Attack(
        edited((STORE, "    while tl.max(row_sum) > -1.0:\n        row_sum += 1.0\n" + STORE)),
        Status.TIMED_OUT,
        "attention_kernel",
    ),
    "keys left out where a value of the inputs says so": Attack(
        edited((KEYS, "range(0, tl.where(tl.load(V).to(tl.float32) > 0.0, kv_len, 0), BLOCK_N)")),
        Status.INCORRECT,
        "rows",
    ),
    "a loop bound from another launch": Attack(
        edited(
            (KEYS, "range(0, tl.load(bound), BLOCK_N)"),
            ("    CAUSAL: tl.constexpr,", "    bound,\n    CAUSAL: tl.constexpr,"),
            (
                "def attention(",
                "@triton.jit\ndef store_bound(where, n):\n    zeros = tl.zeros([16, 16], tl.bfloat16)\n"
                "    tl.store(where, n + tl.sum(tl.dot(zeros, zeros)).to(tl.int32))\n\n\ndef attention(",
            ),
            (
                LAUNCH,
                "    import torch\n    bound = torch.zeros(1, dtype=torch.int32, device=q.device)\n"
                "    store_bound[(1,)](bound, kv_len)\n" + LAUNCH,
            ),
            ("        kv_len,\n        CAUSAL", "        kv_len,\n        bound,\n        CAUSAL"),
        ),
        Status.UNSUPPORTED,
        "the work cannot be counted",
    ),
    "half of the keys, twice": Attack(
        edited(("offs_n = start_n +", "offs_n = (start_n % 4096 if kv_len > 4096 else start_n) +")),
        Status.INCORRECT,
        "8k-",
    ),
    "products for show": Attack(
        edited(
            (KEYS, "range(0, tl.minimum(kv_len, 4096), BLOCK_N)"),
            (
                "    for start",
                "    shown = tl.zeros([BLOCK_M, BLOCK_M], tl.float32)\n    for _ in range(0, kv_len, 16):\n"
                "        shown = tl.dot(q, q.T, shown)\n    acc += tl.sum(shown) * 0.0\n    for start",
            ),
        ),
        Status.INCORRECT,
        "8k-",
    ),
    "a tile of rows that another one copies": Attack(
        edited((PROLOGUE, "    block_m = tl.program_id(0) // 2 * 2\n")), Status.UNWRITTEN, "never written"
    ),
    "a chain of integers in each element": Attack(
        edited(
            (
                "@triton.jit\ndef attention_kernel",
                "@triton.jit\ndef mixed(number):\n    for _ in range(4096):\n        number = (number ^ (number >> 3)) * 5 + 1\n"
                "    return number\n\n\n@triton.jit\ndef attention_kernel",
            ),
            (
                "        mask=offs_m < q_len,\n",
                "        mask=(offs_m < q_len) & (tl.map_elementwise(mixed, offs_m) != 1),\n",
            ),
        ),
        Status.UNSUPPORTED,
        "map_elementwise with a loop, whose passes are not counted",
    ),
    "a remainder that libdevice finds bit by bit": Attack(
        edited(
            (
                "import triton.language as tl\n",
                "import triton.language as tl\nfrom triton.language.extra import libdevice\n",
            ),
            (STORE, "    acc += libdevice.fmod(acc * 0.0 + 1e30, 3.0) * 0.0\n" + STORE),
        ),
        Status.UNSUPPORTED,
        "__nv_fmodf with a loop, whose passes are not counted",
    ),
    "an unrolled loop of a million steps": Attack(
        edited((STORE, "    for _ in tl.static_range(1000000):\n        acc += 1.0\n" + STORE)),
        Status.TIMED_OUT,
        "host code",
    ),
}

MEMORY = {
    "memory behind the output": Attack(
        edited((STORE, "    tl.store(Out + 2**30 + block_m, 0.0)\n" + STORE)),
        Status.OUT_OF_BOUNDS,
        r"write out of bounds .*candidate\.py:\d+",
    ),
    "memory ahead of an input": Attack(
        edited((STORE, "    acc += tl.load(Q - 64).to(tl.float32) * 0.0\n" + STORE)),
        Status.OUT_OF_BOUNDS,
        r"read out of bounds .*candidate\.py:\d+",
    ),
    "an input changed and restored": Attack(
        edited((STORE, "    tl.store(V, tl.load(V))\n" + STORE)), Status.FORBIDDEN, "write to an input.*'v'"
    ),
    "a wait that gives up": Attack(
        edited(
            ("import triton\n", "import torch\nimport triton\n"),
            ("    Lse,\n    scale,\n", "    Lse,\n    Flag,\n    scale,\n"),
            (
                "        lse,\n        scale,\n",
                "        lse,\n        q.new_zeros(1, dtype=torch.int32),\n        scale,\n",
            ),
            (
                STORE,
                "    tries = 0\n    while (tl.atomic_add(Flag, 0) == 0) & (tries < 3):\n        tries += 1\n"
                "    tl.atomic_xchg(Flag, 1)\n" + STORE,
            ),
        ),
        Status.UNSUPPORTED,
        "the wait at candidate.py:.* may end before what it waits for is there",
    ),
    "an input changed by an atomic": Attack(
        edited((STORE, "    tl.atomic_add(V, 0.0)\n" + STORE)), Status.FORBIDDEN, "write to an input.*'v'"
    ),
    "a number as an address": Attack(
        edited(
            (STORE, "    acc += tl.load(tl.cast(kv_len.to(tl.int64) + 4096, tl.pointer_type(tl.float32)))\n" + STORE)
        ),
        Status.OUT_OF_BOUNDS,
        "read out of bounds .*address 0x",
    ),
    "outputs left over in scratch": Attack(
        within("import torch\nold = torch.empty_like(out)\nq = old"), Status.INCORRECT, "read of uninitialised memory"
    ),
}

WAYS = {
    "inline assembly": Attack(
        edited(
            (
                STORE,
                "    acc += tl.inline_asm_elementwise('mov.u32 $0, %smid;', '=r,r', [acc], tl.int32, True, 1) * 0.0\n"
                + STORE,
            )
        ),
        Status.UNSUPPORTED,
        "inline",
    ),
    "an exchange of elements that share registers": Attack(
        edited(
            (
                STORE,
                STORE + "    exchanged = tl.inline_asm_elementwise(\n"
                "        'mov.b32 $0, $3; mov.b32 $1, $2;', '=r,=r,r,r', [out.to(tl.bfloat16)], tl.bfloat16, True, 4)\n",
            ),
            (
                "        o_base + offs_m[:, None].to(tl.int64) * stride_om + offs_d[None, :] * stride_od,\n"
                "        out.to(Out.dtype.element_ty),\n",
                "        o_base + offs_m[:, None].to(tl.int64) * stride_om + (offs_d ^ 2)[None, :] * stride_od,\n        exchanged,\n",
            ),
        ),
        Status.UNSUPPORTED,
        "inline.*depend on which elements are packed together",
    ),
    "assembly whose register hides an operand": Attack(
        edited(
            (
                STORE,
                STORE + "    out = tl.inline_asm_elementwise(\n"
                "        '{ .reg .b32 %r<999>; mov.b32 %r1, 0; mov.b32 $0, $1; }', '=r,r', [out], tl.float32, True, 1)\n",
            )
        ),
        Status.UNSUPPORTED,
        "inline assembly .*reg .b32 %r<999>",
    ),
    "an exit in assembly": Attack(
        edited(
            (
                STORE,
                STORE + "    left = tl.inline_asm_elementwise(\n"
                "        '{ .reg .pred p; setp.gt.s32 p, $1, 4000; @p exit; mov.b32 $0, $1; }', '=r,r', [offs_m], tl.int32, False, 1)\n",
            )
        ),
        Status.UNSUPPORTED,
        "inline assembly .*'@p exit'",
    ),
    "a store in assembly": Attack(
        edited(
            (
                STORE,
                STORE + "    stored = tl.inline_asm_elementwise(\n"
                "        'st.global.b32 [$1], 0; mov.b32 $0, 0;', '=r,l', [Lse + offs_m], tl.int32, False, 1)\n",
            )
        ),
        Status.UNSUPPORTED,
        "inline assembly 'st.global",
    ),
    "an exchange of elements that a call maps together": Attack(
        edited(
            (
                "@triton.jit\ndef attention_kernel",
                "@triton.jit\ndef exchange(a, b):\n    return b, a\n\n\n@triton.jit\ndef attention_kernel",
            ),
            (STORE, STORE + "    out = tl.map_elementwise(exchange, out, pack=2)[0]\n"),
            (
                "        o_base + offs_m[:, None].to(tl.int64) * stride_om + offs_d[None, :] * stride_od,\n        out.to",
                "        o_base + offs_m[:, None].to(tl.int64) * stride_om + (offs_d ^ 1)[None, :] * stride_od,\n        out.to",
            ),
        ),
        Status.UNSUPPORTED,
        "map_elementwise whose results depend on which elements are packed together",
    ),
    "a scan that relies on its order": Attack(
        edited(
            (
                "@triton.jit\ndef attention_kernel",
                "@triton.jit\ndef minus(a, b):\n    return a - b\n\n\n@triton.jit\ndef attention_kernel",
            ),
            (
                "        row_sum = row_sum * rescale + tl.sum(p, 1)\n",
                "        place = tl.arange(0, BLOCK_N)[None, :]\n        less = tl.associative_scan(p, 1, minus)\n"
                "        less = 2 * tl.where(place == 0, p, 0.0) - tl.where(place == BLOCK_N - 1, less, 0.0)\n"
                "        row_sum = row_sum * rescale + tl.sum(less, 1)\n",
            ),
        ),
        Status.INCORRECT,
        "square-full: rows",
    ),
    "a tile transposed through memory, without a barrier": Attack(
        edited(
            ("import triton\n", "import torch\nimport triton\n"),
            ("    Lse,\n    scale,\n", "    Lse,\n    Scratch,\n    scale,\n"),
            (
                "        row_sum = row_sum * rescale + tl.sum(p, 1)\n",
                "        row_sum = row_sum * rescale + tl.sum(p, 1)\n"
                "        mine = Scratch + (batch_head * tl.num_programs(0) + block_m).to(tl.int64) * 4096\n"
                "        at = tl.arange(0, 64)\n"
                "        tl.store(mine + at[:, None] * 64 + at[None, :], p)\n"
                "        p = tl.trans(tl.load(mine + at[None, :] * 64 + at[:, None]))\n",
            ),
            (
                "        lse,\n        scale,\n",
                "        lse,\n        torch.empty((grid[0] * grid[1], 4096), dtype=torch.float32, device=q.device),\n"
                "        scale,\n",
            ),
        ),
        Status.RACE,
        "another thread of the program",
    ),
    "tickets drawn in the order of a block's elements": Attack(
        edited(
            ("import triton\n", "import torch\nimport triton\n"),
            ("    Lse,\n    scale,\n", "    Lse,\n    Count,\n    scale,\n"),
            (
                "    out = acc / row_sum[:, None]\n",
                "    mine = Count + (batch_head * tl.num_programs(0) + block_m)\n"
                "    ticket = tl.atomic_add(mine + offs_d * 0, tl.full([BLOCK_D], 1, tl.int32))\n"
                "    out = tl.where((ticket == offs_d)[None, :], acc / row_sum[:, None], 0.0)\n",
            ),
            (
                "        lse,\n        scale,\n",
                "        lse,\n        torch.zeros(grid[0] * grid[1], dtype=torch.int32, device=q.device),\n        scale,\n",
            ),
        ),
        Status.INCORRECT,
        "square-full: rows",
    ),
    "a reduction that relies on its order": Attack(
        edited(
            (
                "@triton.jit\ndef attention_kernel",
                "@triton.jit\ndef last(a, b):\n    return b\n\n\n@triton.jit\ndef attention_kernel",
            ),
            ("rescale + tl.sum(p, 1)\n", "rescale + tl.reduce(tl.cumsum(p, 1), 1, last)\n"),
        ),
        Status.INCORRECT,
        "square-full: rows",
    ),
    "the clock": Attack(
        edited((STORE, "    acc += (tl.extra.cuda.globaltimer() % 2).to(tl.float32) * 0.0\n" + STORE)),
        Status.UNSUPPORTED,
        "inline",
    ),
    "a clock below Triton's IR": Attack(
        around("""
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
@gluon.jit
def below(Out):
    now = gl.inline_asm_elementwise("mov.u32 $0, %clock; // $1", "=r,r", [gl.program_id(0)], gl.int32, False, 1)
    gl.store(Out, now.to(gl.bfloat16))
def attention(q, k, v, out, lse, *, causal, scale):
    below[(1,)](out)"""),
        Status.UNVERIFIED,
        "%clock",
    ),
    "an option that changes arithmetic": Attack(
        edited(("num_stages=1,", "num_stages=1,\n        allow_fp8e4nv=True,")),
        Status.NO_ENTRY,
        "allow_fp8e4nv|KeyError|option",
    ),
    "a library of one's own": Attack(
        edited(("num_stages=1,", "num_stages=1,\n        extern_libs={'mine': '/tmp/mine.bc'},")),
        Status.FORBIDDEN,
        "extern_libs",
    ),
    "compiled but not launched": Attack(
        edited((LAUNCH, "    attention_kernel.warmup("), ("num_stages=1,", "num_stages=1,\n        grid=grid,")),
        Status.UNWRITTEN,
        "never written",
    ),
    "launched past the recorder": Attack(
        before("from avo.evaluator.capture import launches\nlaunches.CapturedKernel.run = lambda *a, **k: None"),
        Status.UNWRITTEN,
        "never written",
    ),
    "the launcher replaced": Attack(
        before("from triton.runtime.jit import JITFunction\nJITFunction.run = lambda *a, **k: None"),
        Status.UNWRITTEN,
        "never written",
    ),
    "the launcher handed another kernel": Attack(
        around("""
@triton.jit
def other(*args):
    pass
def attention(q, k, v, out, lse, *, causal, scale):
    global attention_kernel
    attention_kernel = {(3, 4): None, 0: None}.get(0) or type("K", (), {"__getitem__": lambda s, g: (lambda *a, **k: None)})()
    honest(q, k, v, out, lse, causal=causal, scale=scale)"""),
        Status.UNWRITTEN,
        "never written",
    ),
    "an empty grid": Attack(edited(("    grid = (", "    grid = (0 * ")), Status.UNWRITTEN, "never written"),
    "a negative grid": Attack(
        edited(("    grid = (", "    grid = (-")), Status.FORBIDDEN, "invalid launch plan: .*grid"
    ),
    "a grid of tensors": Attack(
        within("import torch\nq_len = torch.ones((), device=q.device)\nq.new_ones(3)[0].item()"),
        Status.READS_CONTENTS,
        "line",
    ),
}

EARLY_LAUNCH = ("        num_warps=4,\n", "        num_warps=4,\n        launch_pdl=True,\n")
GDC = (
    "import triton\nimport triton.language as tl\n",
    "import triton\nimport triton.language as tl\nfrom triton.language.extra.cuda import gdc_wait\n",
)
MAY_ACCESS = "launch_pdl.* may access memory while the previous launch still runs"
OVERLAPS = {
    "a launch that does not wait for the one before": Attack(edited(EARLY_LAUNCH), Status.RACE, MAY_ACCESS),
    "a launch that waits when it has read": Attack(
        edited(EARLY_LAUNCH, GDC, ("    row_sum = tl.zeros(", "    gdc_wait()\n    row_sum = tl.zeros(")),
        Status.RACE,
        MAY_ACCESS,
    ),
    "a launch that waits when the copy engine has read": Attack(
        edited(
            (
                "import triton.language as tl\n",
                "import triton.language as tl\nfrom triton.language.extra.cuda import gdc_wait\n",
            ),
            ('    m = tl.full((BM,), float("-inf")', '    gdc_wait()\n    m = tl.full((BM,), float("-inf")'),
            ("num_warps=8)", "num_warps=8, launch_pdl=True)"),
            source=stored("honest/mha/host_descriptors"),
        ),
        Status.RACE,
        MAY_ACCESS,
    ),
    "a launch that waits in a branch": Attack(
        edited(EARLY_LAUNCH, GDC, (PROLOGUE, f"    if kv_len < 0:\n        gdc_wait()\n{PROLOGUE}")),
        Status.RACE,
        MAY_ACCESS,
    ),
}

STAGES = "        num_stages=1,\n"
LAUNCHES = {
    "a cooperative grid of more CTAs than can be resident": Attack(
        edited((STAGES, STAGES + "        launch_cooperative_grid=True,\n")),
        Status.DOES_NOT_FIT,
        "holds 396 at once, 3 on each of 132 SMs.*CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: too many blocks",
    ),
    "clusters of 32 CTAs": Attack(
        edited((STAGES, STAGES + "        num_ctas=32,\n")), Status.DOES_NOT_FIT, "CUDA_ERROR_INVALID_CLUSTER_SIZE"
    ),
}


def tuned(options: str, *edits: tuple[str, str]) -> str:
    """Return the seed under ``triton.autotune``, with ``options`` after its configurations."""
    return edited(
        ("import triton\n", "import random\n\nimport torch\nimport triton\n"),
        (
            "@triton.jit\n",
            "@triton.autotune([triton.Config({'BLOCK_N': n}, num_warps=4, num_stages=1) for n in (16, 32, 64, 128)],\n"
            f"    key=['q_len'], {options})\n@triton.jit\n",
        ),
        ("        BLOCK_N=block_n,\n        num_warps=4,\n        num_stages=1,\n", ""),
        *edits,
    )


AUTOTUNED = {
    "memory that is cleared only while configurations are timed": Attack(
        tuned(
            "reset_to_zero=['Count']",
            ("    Lse,\n    scale,\n", "    Lse,\n    Count,\n    scale,\n"),
            (
                STORE,
                STORE + "    drawn = tl.atomic_add(Count + batch_head * tl.num_programs(0) + block_m, 1)\n"
                "    out = tl.where(drawn == 0, out, 0.0)\n",
            ),
            (
                "        lse,\n        scale,\n",
                "        lse,\n        torch.empty(grid[0] * grid[1], dtype=torch.int32, device=q.device),\n        scale,\n",
            ),
        ),
        Status.INCORRECT,
        "read of uninitialised memory",
    ),
    "configurations that are left out by chance": Attack(
        tuned(
            # So many that two captures of two cases agree by chance once in 250,000 times.
            "prune_configs_by={'early_config_prune': lambda configs, args, **options: [triton.Config("
            "random.SystemRandom().choice(configs).kwargs, num_warps=4, num_stages=1,"
            " maxnreg=random.SystemRandom().randrange(128, 256))]}"
        ),
        Status.FORBIDDEN,
        "launches other plans when it is called again",
    ),
}

ATTACKS = WORK | MEMORY | WAYS | OVERLAPS | LAUNCHES | AUTOTUNED
