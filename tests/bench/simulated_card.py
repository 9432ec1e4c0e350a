"""``bench.first_contact.steps`` on a made-up card, on which all kernels are right; without arguments, its worker."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial

import torch

from avo.evaluator.binary import Binary
from avo.evaluator.cuda import libraries, measuring, worker
from avo.evaluator.cuda.contender import Contender
from avo.evaluator.cuda.device import Enqueue, LoadedKernel, Took
from avo.evaluator.plan import Argument, KernelIR
from avo.evaluator.problems import PROBLEMS
from avo.seeds import seed_source
from bench.first_contact import steps
from tests.evaluator.cuda import gpu_attacks, on_gpu
from tests.evaluator.cuda.fake_device import FakeDevice, Loopback, attend, forever
from tests.evaluator.cuda.stub_card import tiny
from tests.evaluator.cuda.stub_card.tiny import SMALL


class RightDevice(FakeDevice):
    """Whatever is launched, what is right for ``SMALL`` comes out in a millisecond, but for the canary's kernel."""

    def __init__(self) -> None:
        super().__init__(forever(1e-3))
        self._launches = 0

    def load(self, ir: KernelIR, binary: Binary) -> LoadedKernel:
        """Return a kernel that is right, or the canary's."""

        def launch(grid: tuple[int, int, int], arguments: Sequence[Argument], buffers: Sequence[torch.Tensor]) -> None:
            self._launches += 1
            if ir.name == "_canary_kernel":
                buffers[3][0] += 1 + buffers[3][0] ** 2
            else:
                attend(SMALL, dict(zip(("q", "k", "v", "out", "lse"), buffers, strict=False)))

        return launch

    def time(self, enqueue: Enqueue) -> Took:
        """Take as long as there are launches."""
        before = self._launches
        enqueue()
        took = 1e-3 * (self._launches - before)
        return Took(took, took)


def device() -> RightDevice:
    """Return the card."""
    return RightDevice()


def start() -> Contender:
    """Return a worker on it."""
    return Contender(Loopback(device()))


def kernels(arch: int) -> Iterator[tuple[str, str, str]]:
    """Yield a right kernel and one that is none."""
    yield "mha", "plain", seed_source("mha")
    yield "mha", "broken", "def attention(:"


def main(arguments: Sequence[str]) -> None:
    """Run one step."""
    PROBLEMS["tiny"] = tiny.PROBLEM
    measuring.RUNS, measuring.ROUNDS = 6, range(4, 65, 4)
    on_gpu.CASE = gpu_attacks.FITS_IN_L2 = SMALL
    libraries.LIBRARIES = steps.LIBRARIES = libraries.LIBRARIES[:1]
    steps.kernels, steps.VARIANTS, steps.PAIRS = kernels, 2, 3
    steps.STEPS["worker"] = partial(steps.worker, command=(sys.executable, "-m", __spec__.name))
    steps.main(arguments, problem="tiny", start=start)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else worker.main(device))
