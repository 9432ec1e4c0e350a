import pytest

from avo.evaluator.catalogue import get_problem, kind_of, read
from avo.evaluator.errors import InvalidProblem, UnknownProblem
from avo.evaluator.setting import Setting, named

SETTINGS = {
    "mha-d64": Setting(64),
    "mha-d192x128-fp16": Setting(192, 128, "float16"),
    "gqa-fp16": Setting(dtype="float16"),
    "mha-sinks": Setting(sinks=True),
    "gqa-fp16-w1024-global-sinks": Setting(dtype="float16", window=1024, everywhere=True, sinks=True),
    "gqa-d64-packed": Setting(64, packed=True),
    "mha_backward-d192x128-w128-sinks-packed": Setting(192, 128, window=128, sinks=True, packed=True),
    "decode-d192x128-w1024-sinks": Setting(192, 128, window=1024, sinks=True),
    "gqa-h64x8-d64-8192x1-4096x2": Setting(64, heads=(64, 8), shapes=((8192, 1), (4096, 2))),
    "fsa-d64-fp16": Setting(64, dtype="float16"),
    "fsa_backward-sinks-packed": Setting(sinks=True, packed=True),
    "fsa-fp16-local-sinks": Setting(dtype="float16", local=True, sinks=True),
    "fsa-h64x4-b128x16-local-8192x1": Setting(
        block_size=128, blocks=16, local=True, heads=(64, 4), shapes=((8192, 1),)
    ),
    "decode-h48x8-32768x4": Setting(heads=(48, 8), shapes=((32768, 4),)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_name_says_the_whole_setting(name: str) -> None:
    kind = name.partition("-")[0]
    assert read(name) == (kind, SETTINGS[name])
    assert named(kind, SETTINGS[name]) == name
    assert get_problem(name).name == name
    assert get_problem(name) is get_problem(name)
    assert kind_of(name) == kind


def test_other_problems_say_no_setting() -> None:
    for name in ("mha", "fsa", "sliding-window", "sliding-d64", "/tmp/gqa-d64.py"):
        assert read(name) is None
        assert kind_of(name) == name
    with pytest.raises(UnknownProblem, match="unknown problem 'mla-d64'"):
        get_problem("mla-d64")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mha-wide", "'wide' is no part of a setting: write e.g. mha-d64-fp16"),
        ("mha-d80", "head dim 80 is not served: choose one of 64, 96, 128, 192, 256, 512"),
        ("mha-d64x128", "head dims 64 of keys and 128 of values are not served"),
        ("mha-d128", "write mha"),
        ("mha-d64x64", "write mha-d64"),
        ("gqa-fp16-d64", "write gqa-d64-fp16"),
        ("gqa-sinks-w64", "write gqa-w64-sinks"),
        ("mha-w65537", "a window of 65537 keys is longer than the longest sequence"),
        ("mha-c1001", "a soft cap is 20 to 1000, not 1001"),
        ("gqa-sinks-c50", "write gqa-c50-sinks"),
        ("mha_backward-c50", "mha_backward has no soft cap: take mha, gqa or decode"),
        ("fsa-c50", "fsa has no soft cap"),
        ("gqa_backward-d512", "head dim 512 is not served by gqa_backward: take mha, gqa or decode"),
        ("fsa-d512", "head dim 512 is not served by fsa"),
        ("mha-global", "global says that other layers have a window"),
        ("decode-packed", "sequences are not packed in decode: each has its own length and pages"),
        ("fsa-w64", "fsa has no window: in sparse attention that is a separate branch with its own keys, see gqa-w64"),
        ("fsa_backward-w64-packed", "fsa_backward has no window"),
        ("fsa_backward-w64-packed", "see gqa_backward-w64"),
        ("fsa-global", "fsa has no window"),
        ("gqa-local", "gqa selects no blocks: parts like b128x16 and local are for selected attention"),
        ("decode-h64x4-b128x16-8192x1", "decode selects no blocks"),
        ("fsa-b128x16", "the size and number of blocks go with a model's heads and shapes"),
        ("fsa-h64x4-b0x16-8192x1", "blocks of 0 keys are not served: choose one of 16, 32, 64, 128"),
        ("fsa-h64x4-b48x16-8192x1", "blocks of 48 keys are not served"),
        ("fsa-h64x4-b64x2-8192x1", "a query may select 3 to 64 blocks, not 2"),
        ("fsa-h64x64-d64-b16x64-65536x2", "65536x2 does not fit the judge's memory"),
        ("fsa_backward-d64x128", "head dims 64 of keys and 128 of values are not served"),
        ("fsa-h32x5-8192x1", "32 query heads cannot share 5 KV heads"),
        ("gqa-h32x8", "heads and shapes go together"),
        ("gqa-4096x1", "heads and shapes go together"),
        ("gqa-h32x5-4096x1", "32 query heads cannot share 5 KV heads"),
        ("gqa-h32x0-4096x1", "32 query heads cannot share 0 KV heads"),
        ("mha_backward-h32x8-4096x1", "32 on 8 are gqa_backward"),
        ("gqa-h8x8-4096x1", "as many KV heads as query heads are mha"),
        ("gqa-h32x8-131072x1", "a sequence has 128 to 65536 tokens, not 131072"),
        ("gqa-h32x8-4096x0", "a case has one sequence or more, not 0"),
        ("gqa-h32x8-65536x9", "65536x9 does not fit the judge's memory: take fewer tokens, sequences or heads"),
        ("decode-h1000000x1-d64-128x1000", "128x1000 does not fit the judge's memory"),
        ("gqa-h2x1-d64-packed-65536x32", "packed sequences have at most 65536 tokens together, not 2097152"),
        (f"mha-d{'1' * 5000}", "is no part of a setting"),
        ("gqa-h32x8-4096x1-4096x1", "a shape is named twice"),
    ],
)
def test_a_setting_that_is_not_served_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(InvalidProblem) as raised:
        get_problem(name)
    assert str(raised.value).startswith(f"problem {name!r}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
