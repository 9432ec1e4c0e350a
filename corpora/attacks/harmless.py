"""Attacks that are let through because they change nothing: plan and score are those of the seed."""

from corpora.attacks.plans import kernel
from tests.kernels import SEED, around, before, edited, within

CALL = "honest(q, k, v, out, lse, causal=causal, scale=scale)"

UNWATCHED = "from torch.utils._python_dispatch import _disable_current_modes\nwith _disable_current_modes():\n"

CANDIDATES = {
    "comments and names changed": "# a new version\n" + SEED.replace("row_max", "m_i").replace("new_max", "m_ij"),
    "dead code": within("for _ in range(10):\n    pass") + "\n\ndef unused():\n    return 1\n",
    "clocks stopped": before(
        "import time\nfor clock in ('time', 'perf_counter', 'monotonic', 'process_time', 'perf_counter_ns'):\n"
        "    setattr(time, clock, lambda: 0)"
    ),
    "events and synchronize replaced": before(
        "import torch\ntorch.cuda.Event.elapsed_time = lambda *a: 1e-9\ntorch.cuda.synchronize = lambda *a: None\n"
        "import triton.testing\ntriton.testing.do_bench = lambda *a, **k: 1e-9"
    ),
    "comparisons replaced": before(
        "import torch\ntorch.allclose = torch.equal = lambda *a, **k: True\ntorch.Tensor.norm = lambda *a, **k: 0.0\n"
        "torch.testing.assert_close = lambda *a, **k: None"
    ),
    "the evaluator's comparison replaced": before(
        UNWATCHED
        + "    import avo.evaluator.judging.compare, avo.evaluator.problems.mha\navo.evaluator.judging.compare.compare = lambda *a, **k: None\n"
        "avo.evaluator.judging.compare.compare = lambda *a, **k: None\navo.evaluator.problems.mha.Attention.flops = lambda *a: 10**18"
    ),
    "the judge replaced": before(
        UNWATCHED
        + "    import avo.evaluator.judging.judge\navo.evaluator.judging.judge.Judge.evaluate = lambda *a: 'correct'\navo.evaluator.judging.judge.LEAST_WORK = 0.0"
    ),
    "the target made faster": before(
        "import avo.evaluator.target\nfor target in avo.evaluator.target.TARGETS.values(): object.__setattr__(target, 'sms', 10**6)"
    ),
    "seeds guessed": before(
        "import random, secrets, torch\nrandom.seed(0)\ntorch.manual_seed(0)\nsecrets.randbits = lambda bits: 0\ntorch.randn = torch.zeros"
    ),
    "PASS printed": before(
        'print(\'PASS\')\nimport sys\nprint(\'{"status": "correct", "tflops": 9999}\', file=sys.stderr)'
    ),
    "a word on the way out": before(
        'import atexit, os\natexit.register(lambda: os.write(1, b\'{"status": "correct"}\'))'
    ),
    "torch shadowed": before(
        "import sys, types\nimport torch\nsys.modules['torch'] = types.ModuleType('torch')\nsys.path.insert(0, '/tmp')\n"
        "sys.modules['torch'] = torch"
    ),
    "addresses made up by a class of tensors": before(
        "import torch\nclass Elsewhere(torch.Tensor):\n    def data_ptr(self): return 4096\n"
    ).replace("        q,\n        k,", "        q.as_subclass(Elsewhere),\n        k,"),
    "launched by a thread": around(f"""
import threading
def attention(q, k, v, out, lse, *, causal, scale):
    {CALL}
    thread = threading.Thread(target=lambda: None)
    thread.start()"""),
    "behaving while watched": around(f"""
calls = []
def attention(q, k, v, out, lse, *, causal, scale):
    calls.append(1)
    if len(calls) < 10_000:
        {CALL}"""),
    "launched by an operator of its own": around(f"""
import torch
@torch.library.custom_op("mine::attend", mutates_args=("out", "lse"))
def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, causal: bool,
           scale: float) -> None:
    {CALL}
def attention(q, k, v, out, lse, *, causal, scale):
    attend(q, k, v, out, lse, causal, scale)"""),
    "a line table that lies": kernel(
        "dataclasses.replace(kernel, ttir=kernel.ttir.replace('candidate.py', 'judge.py'))"
    ),
}

CHAIN = """\
    number = q_len
    for _ in range(kv_len):
        number = (number ^ (number >> 3)) * 5 + 1
"""
SCALARS = """\
        if kv_len < 0:
            acc = acc * 2.0
        if start_n + kv_len > 0:
            for step in tl.static_range(50):
                number = (number ^ (number >> 3)) * 5 + step
"""
READER = """
import torch
@triton.jit
def read(X, Sums, BLOCK: tl.constexpr):
    program, at = tl.program_id(0), tl.arange(0, BLOCK)
    aside = tl.abs(program - tl.num_programs(0) // 2) > 256
    x = tl.load(X + program * BLOCK + at, mask=aside & (at < BLOCK), other=0.0)
    tl.store(Sums + program, tl.sum(x.to(tl.float32)))
def attention(q, k, v, out, lse, *, causal, scale):
    honest(q, k, v, out, lse, causal=causal, scale=scale)
    if k.shape[2] > 4096:
        sums = torch.empty(k.numel() // 8192, dtype=torch.float32, device=q.device)
        for _ in range(10):
            read[(sums.numel(),)](k, sums, 8192)"""
"""Reads 128 MiB ten times behind the kernel, but for the programs in the middle of the grid."""
NO_FASTER = {
    "launched under another name": kernel("dataclasses.replace(kernel, name='another')"),
    "work left out where queries are zero": edited(
        (
            "        scores = tl.dot(q, k) * scale\n",
            "        scores = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)\n"
            "        if tl.max(tl.abs(q.to(tl.float32))) > 0.0:\n            scores = tl.dot(q, k) * scale\n",
        ),
    ),
    "a loop bound that the inputs give": edited(
        ("range(0, kv_len, BLOCK_N)", "range(0, tl.where(tl.load(Q).to(tl.float32) > 1e30, 0, kv_len), BLOCK_N)")
    ),
}
"""Candidates that are right and have another plan: two would do less work on other inputs, but those of the judge ask for
all of it."""

SLOWER = {
    "a gibibyte filled before the kernel": within(
        "import torch\nif k.shape[2] > 4096:\n    torch.zeros(2**28, dtype=torch.float32, device=q.device)"
    ),
    "integers after the kernel": edited(
        ("    tl.store(\n        Lse", CHAIN + "    tl.store(\n        Lse"),
        ("        mask=offs_m < q_len,\n", "        mask=(offs_m < q_len) & (number != 1),\n"),
    ),
    "loads masked off in the programs in the middle": around(READER),
    "one program at a time": edited(
        ("import triton\n", "import torch\nimport triton\n"),
        ("    Lse,\n", "    Lse,\n    Lock,\n"),
        ("    offs_d = tl.arange", "    while tl.atomic_cas(Lock, 0, 1) == 1:\n        pass\n    offs_d = tl.arange"),
        ("        mask=offs_m < q_len,\n    )\n", "        mask=offs_m < q_len,\n    )\n    tl.atomic_xchg(Lock, 0)\n"),
        ("        lse,\n", "        lse,\n        torch.zeros(1, dtype=torch.int32, device=q.device),\n"),
    ),
    "scalars in each pass, beside a branch with blocks that never runs": edited(
        ("    acc = tl.zeros(", "    number = q_len\n    acc = tl.zeros("),
        ("        scores = tl.dot(", SCALARS + "        scores = tl.dot("),
        ("        mask=offs_m < q_len,\n", "        mask=(offs_m < q_len) & (number != 1),\n"),
    ),
}
"""Candidates that are right and do much besides: 0.3 ms of work on an H100, at least."""
