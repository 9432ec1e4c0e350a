"""Settings of the problems: head dims, types and a model's shapes, and how a problem's name says them.

A problem in a setting is called by its kind and the setting's parts, as in ``gqa-d64-fp16``. The name says everything,
so every process and machine makes the same problem of it.
"""

import re
from dataclasses import dataclass

from avo.evaluator.errors import InvalidProblem

KINDS = ("mha", "gqa", "mha_backward", "gqa_backward", "decode", "fsa", "fsa_backward")
"""The problems that have settings."""
HEAD_DIM = 128
"""The head dim of problems that name none."""
HEAD_DIMS = (64, 96, 128, 192, 256)
"""The head dims that problems are tested with."""
DIFFERENT = ((192, 128),)
"""Head dims of keys and of values that differ: those of DeepSeek-V3 (arXiv 2412.19437) where its latent keys and values
are expanded, as in prefill and training. Decoding from the latent cache itself is another computation.
"""
LONGEST = 2**16
"""The longest sequence of a benchmark case, or packed sequences together: drawn cases have up to twice as many keys."""
MOST_ELEMENTS = 2**28
"""Most elements of q, of k, and of the selected blocks in a benchmark case: half a gigabyte, or one."""

BLOCK_SIZES = (16, 32, 64, 128)
"""The sizes of selected blocks that problems are tested with."""
BLOCKS = range(3, 65)
"""How many blocks a query may select at most."""

_DTYPES = {"fp16": "float16"}
"""Types besides bfloat16, by the part of a name."""
_PARTS = (
    r"h(?P<heads>\d{1,9})x(?P<kv_heads>\d{1,9})",
    r"d(?P<head_dim>\d{1,9})(x(?P<head_dim_v>\d{1,9}))?",
    r"(?P<dtype>fp16)",
    r"b(?P<block_size>\d{1,9})x(?P<blocks>\d{1,9})",
    r"(?P<local>local)",
    r"w(?P<window>\d{1,9})",
    r"(?P<everywhere>global)",
    r"(?P<sinks>sinks)",
    r"(?P<packed>packed)",
    r"(?P<length>\d{1,9})x(?P<batch>\d{1,9})",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What the cases of a problem have in common, where it is not that of the paper."""

    head_dim: int = HEAD_DIM
    head_dim_v: int = 0
    """Elements of a value; 0 stands for ``head_dim``."""
    dtype: str = "bfloat16"
    block_size: int = 0
    """Keys of a selected block; 0: those of the problem's own cases."""
    blocks: int = 0
    """Blocks that a query may select at most, where ``block_size`` is given."""
    local: bool = False
    """Whether its own block is the only one that a query always selects."""
    window: int = 0
    """Number of keys that a query sees, its own and those before it; 0: all."""
    everywhere: bool = False
    """Whether queries see all keys in other layers than those with the window."""
    sinks: bool = False
    """Whether each head has a sink: a logit that takes part in the softmax and has no value."""
    packed: bool = False
    """Whether sequences of several lengths are packed one after another."""
    heads: tuple[int, int] | None = None
    """Query heads and KV heads of a model; None: those of the problem's own cases."""
    shapes: tuple[tuple[int, int], ...] = ()
    """Length and batch of each benchmark case, for a model's heads; empty: those of the problem's own cases."""

    @property
    def plain(self) -> bool:
        """Whether kernels take the same arguments as without a setting, and values are as long as keys."""
        return not (self.head_dim_v or self.window or self.sinks or self.packed)

    @property
    def parts(self) -> tuple[str, ...]:
        """What a problem's name says of it, in order."""
        dims = f"d{self.head_dim}" + (f"x{self.head_dim_v}" if self.head_dim_v else "")
        return (
            *([f"h{self.heads[0]}x{self.heads[1]}"] if self.heads else []),
            *([dims] if dims != f"d{HEAD_DIM}" else []),
            *(part for part, dtype in _DTYPES.items() if dtype == self.dtype),
            *([f"b{self.block_size}x{self.blocks}"] if self.block_size else []),
            *(["local"] if self.local else []),
            *([f"w{self.window}"] if self.window else []),
            *(["global"] if self.everywhere else []),
            *(["sinks"] if self.sinks else []),
            *(["packed"] if self.packed else []),
            *(f"{length}x{batch}" for length, batch in self.shapes),
        )

    @property
    def words(self) -> str:
        """The dims and the type, for a reader."""
        dims = f"{self.head_dim}" + (f" of keys and {self.head_dim_v} of values" if self.head_dim_v else "")
        return f"head dim {dims}, {self.dtype}"


def named(kind: str, setting: Setting) -> str:
    """Return the name of the problem of this kind in a setting."""
    return "-".join((kind, *setting.parts))


def kind_and_setting(name: str) -> tuple[str, Setting | None]:
    """Return the kind and the setting of a problem; for a problem in no setting, its name and None.

    A problem of the user's own may have a name like ``decode-mla``: it says no setting.
    """
    try:
        return read(name) or (name, None)
    except InvalidProblem:
        return name, None


def kind_of(name: str) -> str:
    """Return the kind of a problem in a setting; for any other problem, its name."""
    return kind_and_setting(name)[0]


def read(name: str) -> tuple[str, Setting] | None:
    """Return the kind and the setting that the name of a problem says; None for a name of another kind.

    Raises ``InvalidProblem`` for a setting that does not exist, is not served, or is written otherwise.
    """
    kind, *parts = name.split("-")
    if kind not in KINDS or not parts:
        return None
    found: dict[str, str] = {}
    shapes: list[tuple[int, int]] = []
    for part in parts:
        match = next((match for pattern in _PARTS if (match := re.fullmatch(pattern, part))), None)
        if match is None:
            raise InvalidProblem(
                f"problem {name!r}: {part!r} is no part of a setting: write e.g. {kind}-d64-fp16, or "
                f"{kind}-h{'32x32' if kind.startswith('mha') else '32x8'}-d64-8192x4 (heads, head dim, length x batch)"
            )
        values = {key: value for key, value in match.groupdict().items() if value is not None}
        if "length" in values:
            shapes.append((int(values["length"]), int(values["batch"])))
        else:
            found |= values
    head_dim = found.get("head_dim", str(HEAD_DIM))
    setting = Setting(
        head_dim=int(head_dim),
        head_dim_v=int(found["head_dim_v"]) if found.get("head_dim_v", head_dim) != head_dim else 0,
        dtype=_DTYPES[found["dtype"]] if "dtype" in found else "bfloat16",
        block_size=int(found.get("block_size", 0)),
        blocks=int(found.get("blocks", 0)),
        local="local" in found,
        window=int(found.get("window", 0)),
        everywhere="everywhere" in found,
        sinks="sinks" in found,
        packed="packed" in found,
        heads=(int(found["heads"]), int(found["kv_heads"])) if "heads" in found else None,
        shapes=tuple(shapes),
    )
    if refused := refusal(kind, setting):
        raise InvalidProblem(f"problem {name!r}: {refused}")
    if name != (canonical := named(kind, setting)):
        raise InvalidProblem(f"problem {name!r}: write {canonical}")
    return kind, setting


def meaning(kind: str, setting: Setting) -> str:
    """Return what operators are told of a setting, besides what a problem of this kind says of itself: a line for each
    thing that it adds.
    """
    said = []
    if setting.head_dim_v:
        of = "v, out, dout and dv" if kind.endswith("backward") else "v and out"
        said.append(f"The rows of {of} have {setting.head_dim_v} elements.")
    sparse = kind.startswith("fsa")
    if setting.local:
        said.append("Only the block of t is always among those that t selects.")
    if setting.packed:
        counted = "t, u and the blocks" if sparse else "i, j, q_len and kv_len"
        said.append(
            "Sequences are packed one after another, and the batch is 1. cu_seqlens_q and cu_seqlens_k are int32 "
            "[sequences + 1], contiguous, from 0 to the number of all queries or keys: sequence s has the queries from "
            "cu_seqlens_q[s] to cu_seqlens_q[s + 1] - 1 and the keys likewise, "
            + ("as many as queries, so that both have the same lengths" if sparse else "at least as many as queries")
            + ". It may have none. max_seqlen_q and max_seqlen_k are the longest of them. A query sees keys of its own "
            f"sequence alone; in what is said above and below, {counted} are counted within this sequence."
        )
    if setting.window:
        keys = "lengths[b]" if kind == "decode" else "kv_len"
        said.append(
            ("" if kind == "decode" else "causal is True. ")
            + "window is 1 or more, and may be longer than a sequence: query i sees key j only if also "
            + f"j > i + {keys} - q_len - window."
            + (" Pages before these keys are in the table all the same." if kind == "decode" else "")
        )
    if setting.sinks:
        said.append(
            "sinks is float32 [heads], contiguous: one extra logit for each query head, besides its scaled scores; it "
            "is not scaled. It counts in the denominator of the softmax and in lse, and has no value."
        )
        if kind.endswith("backward"):
            said.append(
                "dsinks, float32 [1, heads, 1], is the gradient of each head's sink: -sum(exp(sink - lse) * "
                "rowsum(dout * out)) over all queries of all sequences."
            )
    return "\n".join(said)


def refusal(kind: str, setting: Setting) -> str:
    """Return in a few words why a setting is not served; empty where it is."""
    dims = (setting.head_dim, setting.head_dim_v)
    if setting.head_dim_v and dims not in DIFFERENT:
        return f"head dims {dims[0]} of keys and {dims[1]} of values are not served: take 192 and 128"
    if setting.head_dim not in HEAD_DIMS:
        return f"head dim {setting.head_dim} is not served: choose one of {', '.join(map(str, HEAD_DIMS))}"
    if kind.startswith("fsa") and (refused := _refused_of_selected(kind, setting)):
        return refused
    if not kind.startswith("fsa") and (setting.block_size or setting.local):
        return f"{kind} selects no blocks: parts like b128x16 and local are for fsa and fsa_backward"
    if setting.packed and kind == "decode":
        return "sequences are not packed in decode: each has its own length and pages"
    if setting.window > LONGEST:
        return f"a window of {setting.window} keys is longer than the longest sequence, {LONGEST}"
    if setting.everywhere and not setting.window:
        return "global says that other layers have a window: add it, as in w1024-global, or leave it out"
    if bool(setting.heads) != bool(setting.shapes):
        return "heads and shapes go together: add both, as in h32x8 and 8192x4, or neither"
    if setting.heads is not None:
        heads, kv_heads = setting.heads
        if not 0 < kv_heads <= heads or heads % kv_heads:
            return f"{heads} query heads cannot share {kv_heads} KV heads"
        if kind.startswith("mha") and heads != kv_heads:
            return f"{kind} has a KV head for each query head: {heads} on {kv_heads} are {kind.replace('mha', 'gqa')}"
        if kind.startswith("gqa") and heads == kv_heads:
            return f"as many KV heads as query heads are {kind.replace('gqa', 'mha')}"
    for length, batch in setting.shapes:
        if not 128 <= length <= LONGEST:
            return f"a sequence has 128 to {LONGEST} tokens, not {length}"
        if batch < 1:
            return f"a case has one sequence or more, not {batch}"
        if setting.packed and length * batch > LONGEST:
            return f"packed sequences have at most {LONGEST} tokens together, not {length * batch}"
        assert setting.heads is not None
        heads, kv_heads = setting.heads
        rows = max(length * kv_heads, heads) if kind == "decode" else length * heads
        if batch * max(rows * setting.head_dim, length * kv_heads * setting.blocks) > MOST_ELEMENTS:
            return f"{length}x{batch} does not fit the judge's memory: take fewer tokens, sequences or heads"
    if len(set(setting.shapes)) < len(setting.shapes):
        return "a shape is named twice"
    return ""


def _refused_of_selected(kind: str, setting: Setting) -> str:
    """Return why selected attention is not served in a setting that dense attention is served in."""
    if setting.window or setting.everywhere:
        dense = "gqa" + kind.removeprefix("fsa")
        return (
            f"{kind} has no window: in sparse attention that is a separate branch with its own keys, "
            f"see {dense}-w{setting.window or 512}"
        )
    if not setting.block_size and not setting.blocks:
        return ""
    if setting.block_size not in BLOCK_SIZES:
        return f"blocks of {setting.block_size} keys are not served: choose one of {', '.join(map(str, BLOCK_SIZES))}"
    if setting.blocks not in BLOCKS:
        return f"a query may select {BLOCKS[0]} to {BLOCKS[-1]} blocks, not {setting.blocks}"
    if not setting.heads:
        return "the size and number of blocks go with a model's heads and shapes, as in h64x4-b128x16-8192x1"
    return ""
