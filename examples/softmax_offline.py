"""The executor on a kernel of your own: no GPU, no AVO run.

    python -m examples.softmax_offline

The kernel computes one row of a softmax per program. Its first version loads without a mask. On a GPU that goes
unnoticed for as long as the memory behind each row happens to be harmless; the executor reports it as a read out of
bounds, with source line and program. The second version is right, and the script prints what the compiler makes of it
for an H100. docs/executor.md describes the options and everything that is found.
"""

import torch
import triton
import triton.language as tl

from avo import offline


@triton.jit
def softmax_kernel(x, y, columns, MASKED: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < columns
    if MASKED:
        value = tl.load(x + row * columns + column, mask=inside, other=float("-inf"))
    else:
        value = tl.load(x + row * columns + column)
    value = tl.exp(value - tl.max(value))
    tl.store(y + row * columns + column, value / tl.sum(value), mask=inside)


def softmax(x: torch.Tensor, *, masked: bool) -> torch.Tensor:
    """Return the softmax of each row of ``x`` [rows, columns]."""
    y = torch.empty_like(x)
    rows, columns = x.shape
    softmax_kernel[(rows,)](x, y, columns, MASKED=masked, BLOCK=triton.next_power_of_2(columns))
    return y


def main() -> None:
    """Run both versions on the CPU and print what was found."""
    for masked in (False, True):
        with offline(target="h100") as session:
            x = torch.randn(8, 100, device="cuda")  # stays on the CPU
            right = torch.allclose(softmax(x, masked=masked), torch.softmax(x, 1))
        report = session.report()
        print(f"{'with' if masked else 'without'} a mask: {'right' if right else 'wrong'}")
        print(report)
    resources = report.launches[0].resources
    print(f"compiled for an H100: {resources.registers} registers per thread, {resources.spill_bytes} bytes spilled")


if __name__ == "__main__":
    main()
