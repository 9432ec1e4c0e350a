"""Print predicted against published TFLOPS of forward attention, head dimension 128.

python -m bench.model
"""

import time

from bench.variants import Variant, compile_variant, predict_variant
from evaluator.target import get_target

LENGTHS = (4096, 8192, 16384)
_FA3 = "Triton as in the FlashAttention-3 paper, on H100 SXM"
_TUTORIAL = "Triton tutorial, 2024, on H100 SXM"
_TLX = "Triton with warp specialisation (TLX), on H100 SXM"
_FA2 = "FlashAttention-2 on A100 (up to 230) over 1.3 to 1.5, its stated lead on Triton"
_B200 = "a plain Triton kernel on B200, card unstated"
ANCHORS = (
    ("128x64", Variant(128, 64, 8, 3), "h100", (389, 392, 395), _FA3),
    ("128x128", Variant(128, 128, 8, 3), "h100", (459, 471, 477), _TUTORIAL),
    ("128x128 descriptors", Variant(128, 128, 8, 3, descriptors=True), "h100", (459, 471, 477), _TUTORIAL),
    ("128x64 causal, split", Variant(128, 64, 8, 3, schedule="split"), "h100", (353, 369, 378), _FA3),
    (
        "128x64 warp-specialised",
        Variant(128, 64, 4, 3, descriptors=True, specialised=True),
        "h100",
        (501, 526, 502),
        _TLX,
    ),
    ("128x64", Variant(128, 64, 8, 3), "a100", ("153-177",) * 3, _FA2),
    ("128x128", Variant(128, 128, 8, 3), "b200", (567, 671, 746), _B200),
    (
        "128x128 warp-specialised",
        Variant(128, 128, 4, 3, descriptors=True, specialised=True),
        "b200",
        (567, 671, 746),
        _B200,
    ),
)


def main() -> None:
    """Predict every anchor and print one row each."""
    print(f"{'target':7}{'kernel':26}{'predicted at 4k / 8k / 16k':28}{'published':20}limiter   seconds  source")
    for name, variant, target, published, source in ANCHORS:
        compile_variant(variant, get_target(target).arch)
        started = time.perf_counter()
        scores = [predict_variant(variant, target, length) for length in LENGTHS]
        seconds = time.perf_counter() - started
        predicted = " / ".join(f"{score.tflops:.0f}" for score in scores)
        known = " / ".join(map(str, published)) if len(set(published)) > 1 else str(published[0])
        print(f"{target:7}{name:26}{predicted:28}{known:20}{scores[-1].limiter:10}{seconds:7.2f}  {source}")


if __name__ == "__main__":
    main()
