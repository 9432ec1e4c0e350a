"""Why a problem is not served in a setting: in a few words, empty where it is."""

from avo.evaluator.problem import Problem
from avo.evaluator.problems.dense import shares
from avo.evaluator.setting import (
    BLOCK_SIZES,
    BLOCKS,
    DIFFERENT,
    HEAD_DIMS,
    LONGEST,
    MOST_ELEMENTS,
    SOFTCAPS,
    Setting,
)


def refusal(setting: Setting, own: str, of_heads: str = "", *, one_query: bool = False) -> str:
    """Return why a problem is not served in a setting: for what all problems ask for, ``own`` reasons, or those
    ``of_heads``. With ``one_query`` a model's cases have one query a sequence, else one a key.
    """
    return (
        _of_dims(setting) or own or _of_window(setting) or _of_cap(setting) or _of_heads(setting) or of_heads
        or _of_shapes(setting, one_query=one_query)
    )  # fmt: skip


def _of_dims(setting: Setting) -> str:
    dims = (setting.head_dim, setting.head_dim_v)
    if setting.head_dim_v and dims not in DIFFERENT:
        return f"head dims {dims[0]} of keys and {dims[1]} of values are not served: take 192 and 128"
    if setting.head_dim not in HEAD_DIMS:
        return f"head dim {setting.head_dim} is not served: choose one of {', '.join(map(str, HEAD_DIMS))}"
    return ""


def of_no_blocks(name: str, setting: Setting) -> str:
    """Return why blocks are not served by the problem ``name``, whose queries select none."""
    if setting.block_size or setting.local:
        return f"{name} selects no blocks: parts like b128x16 and local are for selected attention"
    return ""


def of_selection(name: str, dense: str, setting: Setting) -> str:
    """Return why selected attention, the problem ``name``, is not served in a setting that ``dense`` is served in."""
    if refused := of_forward(name, setting):
        return refused
    if setting.window or setting.everywhere:
        return (
            f"{name} has no window: in sparse attention that is a separate branch with its own keys, "
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


def _of_window(setting: Setting) -> str:
    if setting.window > LONGEST:
        return f"a window of {setting.window} keys is longer than the longest sequence, {LONGEST}"
    if setting.everywhere and not setting.window:
        return "global says that other layers have a window: add it, as in w1024-global, or leave it out"
    return ""


def _of_cap(setting: Setting) -> str:
    if setting.softcap and setting.softcap not in SOFTCAPS:
        return f"a soft cap is {SOFTCAPS[0]} to {SOFTCAPS[-1]}, not {setting.softcap}"
    return ""


def of_forward(name: str, setting: Setting) -> str:
    """Return why the problem ``name`` is not served in a setting of dense attention that is served forward alone."""
    if setting.softcap:
        return f"{name} has no soft cap: take mha, gqa or decode"
    return f"head dim 512 is not served by {name}: take mha, gqa or decode" if setting.head_dim == 512 else ""


def _of_heads(setting: Setting) -> str:
    if bool(setting.heads) != bool(setting.shapes):
        return "heads and shapes go together: add both, as in h32x8 and 8192x4, or neither"
    if setting.heads is not None:
        heads, kv_heads = setting.heads
        if not 0 < kv_heads <= heads or heads % kv_heads:
            return f"{heads} query heads cannot share {kv_heads} KV heads"
    return ""


def of_sharing(problem: Problem, other: str, setting: Setting) -> str:
    """Return why a model's heads are for the problem ``other``: of the two, one's query heads share KV heads."""
    shared = shares(problem)
    if setting.heads is None or (setting.heads[0] > setting.heads[1]) == shared:
        return ""
    if shared:
        return f"as many KV heads as query heads are {other}"
    heads, kv_heads = setting.heads
    return f"{problem.name} has a KV head for each query head: {heads} on {kv_heads} are {other}"


def _of_shapes(setting: Setting, *, one_query: bool) -> str:
    for length, batch in setting.shapes:
        if not 128 <= length <= LONGEST:
            return f"a sequence has 128 to {LONGEST} tokens, not {length}"
        if batch < 1:
            return f"a case has one sequence or more, not {batch}"
        if setting.packed and length * batch > LONGEST:
            return f"packed sequences have at most {LONGEST} tokens together, not {length * batch}"
        assert setting.heads is not None
        heads, kv_heads = setting.heads
        rows = max(length * kv_heads, heads) if one_query else length * heads
        if batch * max(rows * setting.head_dim, length * kv_heads * setting.blocks) > MOST_ELEMENTS:
            return f"{length}x{batch} does not fit the judge's memory: take fewer tokens, sequences or heads"
    if len(set(setting.shapes)) < len(setting.shapes):
        return "a shape is named twice"
    return ""
