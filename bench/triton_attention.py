"""What Triton's own attention in Gluon is predicted at, beside what was published for it.

    python -m bench.triton_attention TRITON [--write]

TRITON is a checkout of https://github.com/triton-lang/triton, whose python/examples/gluon/01-attention-forward.py is
imported as it is: nothing of Triton is copied, nothing is executed. ``--write`` puts the table into
docs/performance-model.md. Half a minute.
"""

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch

from avo.evaluator.modules import imported
from avo.evaluator.offline import offline
from bench.tables import Table, put, row
from bench.tutorials import EXAMPLE

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance-model.md"
PLACE = "bench.triton_attention: speeds"
BATCH, HEADS, HEAD_DIM, SCALE = 4, 32, 128, 1.3
"""What the example's benchmark times, in float16."""


@dataclass(frozen=True)
class Published:
    """TFLOPS of the example by tokens, full attention; one or two CTAs a program."""

    target: str
    ctas: int
    tflops: Mapping[int, float]
    source: str

    @property
    def layout(self) -> tuple[tuple[int, int], ...]:
        """How a program's rows are spread over its CTAs, as the example takes it."""
        return ((1, 0),) * (self.ctas - 1)


_JULY = {4096: 1222, 8192: 1314, 16384: 1230, 32768: 1232}
_JULY_SOURCE = "triton pull 7655 (July 2025), one CTA, card not stated"
_GB300_SOURCE = "triton pull 10211 (May 2026), GB300"
PUBLISHED = (
    Published("b200", 1, _JULY, _JULY_SOURCE),
    Published("b200", 2, _JULY, _JULY_SOURCE),
    Published("b300", 1, {1024: 1058, 2048: 1462, 4096: 1608, 8192: 1677}, _GB300_SOURCE),
    Published("b300", 2, {1024: 1068, 2048: 1515, 4096: 1673, 8192: 1729}, _GB300_SOURCE),
)


def speeds(file: Path, published: Published) -> list[float]:
    """Return the predicted TFLOPS of the example in ``file`` for the lengths that were published."""
    found: list[float] = []
    with offline(target=published.target, execute=False) as session:
        example = imported(file)
        for tokens in published.tflops:
            q, k, v = (
                torch.empty((BATCH, HEADS, tokens, HEAD_DIM), device="cuda", dtype=torch.float16) for _ in range(3)
            )
            example.attention_forward(q, k, v, False, SCALE, cga_layout=published.layout)
            flops = 4 * BATCH * HEADS * HEAD_DIM * tokens**2
            found.append(flops / session.launches[-1].predict(cold=True).us / 1e6)
    return found


def table(predicted: Iterable[tuple[Published, Sequence[float]]]) -> Table:
    """Yield a row for each form of the example on each card."""
    yield row("target", "CTAs a program", "tokens", "predicted", "published", "off by", "source")
    yield "|---|---:|---|---|---|---:|---|"
    for published, found in predicted:
        off = mean(abs(a / b - 1) for a, b in zip(found, published.tflops.values(), strict=True))
        yield row(
            published.target,
            published.ctas,
            *(" / ".join(f"{value:.0f}" for value in values) for values in (published.tflops, found)),
            " / ".join(f"{value:.0f}" for value in published.tflops.values()),
            f"{off:.0%}",
            published.source,
        )


def main() -> None:
    """Print the table, and write it into the page on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, metavar="TRITON")
    parser.add_argument("--write", action="store_true", help=f"put the table into docs/{DOCUMENT.name}")
    options = parser.parse_args()
    file = options.checkout / EXAMPLE
    if not file.is_file():
        parser.error(f"there is no {file}: name a checkout of Triton")
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # Triton 3.9 warns where it is not set
    lines = "\n".join(table((published, speeds(file, published)) for published in PUBLISHED))
    print(lines)
    if options.write:
        DOCUMENT.write_text(put(DOCUMENT.read_text(), PLACE, lines))


if __name__ == "__main__":
    main()
