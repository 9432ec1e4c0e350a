"""A device with kernels that are Python functions and a clock that is told what to say."""

import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from avo.evaluator.binary import Binary
from avo.evaluator.catalogue import get_problem
from avo.evaluator.cuda.cards import Card
from avo.evaluator.cuda.device import Clocks, DeviceFault, Enqueue, LoadedKernel, NotRecorded, Setup, Took
from avo.evaluator.cuda.worker import IMPORTED, Worker
from avo.evaluator.judging.speed import CompiledPlan
from avo.evaluator.plan import Argument, Buffer, KernelIR, Launch, LaunchPlan, Pointer, Role
from avo.evaluator.problem import Case

Tensors = Mapping[str, torch.Tensor]
Function = Callable[[Tensors], None]

CARD = Card("Fake H100", 90, 132, 50 * 2**20, 1.98, 3.35e12, "550.54")
SETUP = Setup("CUDA 12.8, torch 2.11.0, Triton 3.6.0, ptxas 12.8", 700.0, 2.5e-6)
MHA = get_problem("mha")
CASE = Case("small", 1, 2, 2, 40, 72, 128, True)
OTHER = Case("other", 2, 1, 1, 33, 33, 128, False, layout="padded")
SCALE = CASE.head_dim**-0.5


def plan_of(case: Case, kernel: str) -> LaunchPlan:
    """Return a plan that launches one kernel with q, k, v, out, lse and one scratch buffer."""
    specs = MHA.call(case).tensors
    buffers = (
        *(Buffer(spec.name, spec.dtype, spec.size, spec.role) for spec in specs),
        Buffer("scratch", "int32", 8, Role.SCRATCH),
    )
    args = tuple(Pointer(i, 0) for i in range(len(buffers)))
    return LaunchPlan(
        case.name, buffers, (KernelIR(kernel, f"{kernel} {case.name}", ()),), (Launch(0, (1, 1, 1), args),)
    )


def benchmark(case: Case, kernel: str) -> CompiledPlan:
    """Return a benchmark with that plan, and a binary that is none."""
    plan = plan_of(case, kernel)
    binary = Binary(kernel, "cuda", b"", "", 128, 32, 0, 0, 0)
    return CompiledPlan(case, plan, {plan.kernels[0]: binary}, ())


def views(case: Case, flat: Tensors) -> dict[str, torch.Tensor]:
    """Return the call's tensors."""
    specs = {spec.name: spec for spec in MHA.call(case).tensors}
    return {name: flat[name].as_strided(spec.shape, spec.held.strides) for name, spec in specs.items()}


def hidden(case: Case) -> torch.Tensor:
    """Return which keys a query does not see, bool [q_len, kv_len]."""
    everything = torch.ones(case.q_len, case.kv_len, dtype=torch.bool)
    return everything.triu(case.kv_len - case.q_len + 1) if case.causal else ~everything


def attend(case: Case, flat: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """Return out and lse of ``case``, and write them."""
    view = views(case, flat)
    scores = (view["q"].float() @ view["k"].float().transpose(2, 3) * SCALE).masked_fill(hidden(case), -torch.inf)
    out, lse = torch.softmax(scores, -1) @ view["v"].float(), torch.logsumexp(scores, -1)
    view["out"].copy_(out)
    view["lse"].copy_(lse)
    return view["out"].clone(), lse


class Stale:
    """Computes once, and gives the same answer ever after."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._kept: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, flat: Tensors) -> None:
        """Launch."""
        if self._kept is None:
            self._kept = attend(self._case, flat)
        for name, kept in zip(("out", "lse"), self._kept, strict=True):
            views(self._case, flat)[name].copy_(kept)


class Updates:
    """Computes everything once; later it looks for keys and queries that have changed, and mends what depends on them.

    It does so for ``most`` of each head at most: for more it would save no work.
    """

    most = 2

    def __init__(self, case: Case) -> None:
        self._case = case
        self._kept: dict[str, torch.Tensor] = {}

    def __call__(self, flat: Tensors) -> None:
        """Launch."""
        view = views(self._case, flat)
        now = {name: view[name].double().clone() for name in ("q", "k", "v")}
        if not self._kept:
            self._kept = now | dict(zip(("sum", "all"), self._parts(now, slice(None)), strict=True))
        kept, group = self._kept, self._case.heads // self._case.kv_heads
        changed = ((now["k"] != kept["k"]) | (now["v"] != kept["v"])).any(-1)
        for batch, head, key in changed.nonzero()[: self.most * self._case.kv_heads].tolist():
            heads = slice(head * group, (head + 1) * group)
            for k, v, sign in ((kept["k"], kept["v"], -1), (now["k"], now["v"], 1)):
                scores = kept["q"][batch, heads] @ k[batch, head, key] * SCALE
                weights = scores.masked_fill(hidden(self._case)[:, key], -torch.inf).exp() * sign
                kept["sum"][batch, heads] += weights
                kept["all"][batch, heads] += weights[..., None] * v[batch, head, key]
            kept["k"][batch, head, key], kept["v"][batch, head, key] = (
                now["k"][batch, head, key],
                now["v"][batch, head, key],
            )
        rows = (now["q"] != kept["q"]).any(-1).nonzero()[: self.most * self._case.heads]
        for batch, head, row in rows.tolist():
            kept["q"][batch, head, row] = now["q"][batch, head, row]
            sums, alls = self._parts({name: kept[name] for name in ("q", "k", "v")}, row)
            kept["sum"][batch, head, row], kept["all"][batch, head, row] = sums[batch, head], alls[batch, head]
        view["out"].copy_(kept["all"] / kept["sum"][..., None])
        view["lse"].copy_(kept["sum"].log())

    def _parts(self, inputs: Tensors, rows: slice | int) -> tuple[torch.Tensor, torch.Tensor]:
        k, v = (inputs[n].repeat_interleave(self._case.heads // self._case.kv_heads, 1) for n in ("k", "v"))
        q = inputs["q"][:, :, rows]
        scores = torch.einsum("bh...d,bhkd->bh...k", q, k) * SCALE
        weights = scores.masked_fill(hidden(self._case)[rows], -torch.inf).exp()
        return weights.sum(-1), torch.einsum("bh...k,bhkd->bh...d", weights, v)


class Counts:
    """Is honest for some calls, which it counts where nobody looks, and then leaves half of the rows to chance."""

    honest = 20

    def __init__(self, case: Case) -> None:
        self._case = case
        self._calls = 0

    def __call__(self, flat: Tensors) -> None:
        """Launch."""
        attend(self._case, flat)
        self._calls += 1
        if self._calls > self.honest:
            views(self._case, flat)["out"][:, :, ::2] *= 0.5


class Flaky:
    """Is wrong at its first call, and right ever after."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._called = False

    def __call__(self, flat: Tensors) -> None:
        """Launch."""
        attend(self._case, flat)
        if not self._called:
            flat["out"].mul_(1.5)
        self._called = True


def functions(case: Case) -> dict[str, Function]:
    """Return the kernels by name."""

    def honest(flat: Tensors) -> None:
        attend(case, flat)

    def zeros(flat: Tensors) -> None:
        honest(flat)
        flat["out"].zero_()

    def lazy(flat: Tensors) -> None:
        before = flat["lse"][-1:].clone()
        honest(flat)
        flat["lse"][-1:] = before

    def undefined(flat: Tensors) -> None:
        honest(flat)
        flat["out"][17] = torch.nan

    def overrun(flat: Tensors) -> None:
        honest(flat)
        torch.as_strided(flat["out"], (1,), (1,), flat["out"].storage_offset() - 1).fill_(1)

    def vandal(flat: Tensors) -> None:
        honest(flat)
        flat["k"][:1].fill_(1)

    def counts(flat: Tensors) -> None:
        assert bool((flat["scratch"] == 0x55555555).all()), "scratch keeps what a run left there"
        honest(flat)
        flat["scratch"].add_(1)

    def illegal(flat: Tensors) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore about it")

    def greedy(flat: Tensors) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    def broken(flat: Tensors) -> None:
        raise KeyError("a mistake of the house")

    def uncapturable(flat: Tensors) -> None:
        honest(flat)

    plain = (
        honest, uncapturable, zeros, lazy, undefined, overrun, vandal, counts, illegal, greedy, broken,
    )  # fmt: skip
    return {
        **{function.__name__: function for function in plain},
        "stale": Stale(case),
        "updates": Updates(case),
        "tires": Counts(case),
        "flaky": Flaky(case),
    }


class FakeDevice:
    """Runs kernels at once, on the CPU; a run takes the next of ``seconds``, and ``late`` more by the host's clock."""

    card = CARD
    setup = SETUP
    place = torch.device("cpu")

    def __init__(
        self, seconds: Iterator[float], clocks: Clocks | None = None, loaded: list[str] | None = None, late: float = 0.0
    ) -> None:
        """``loaded`` gets the names of kernels as they are loaded."""
        self._seconds, self._clocks, self._late = seconds, clocks, late
        self._loaded = [] if loaded is None else loaded
        self.runs, self._captures = 0, True
        self.stretches: list[float] = []
        self._kernels = {f"{name} {case.name}": f for case in (CASE, OTHER) for name, f in functions(case).items()}

    def load(self, ir: KernelIR, binary: Binary) -> LoadedKernel:
        """Return the function that the IR names."""
        if ir.name == "large":
            raise DeviceFault("kernel large: out of resource: shared memory")
        self._loaded.append(ir.name)
        function = self._kernels[ir.ttir]
        self._captures = ir.name != "uncapturable"

        def launch(grid: tuple[int, int, int], arguments: Sequence[Argument], buffers: Sequence[torch.Tensor]) -> None:
            function(dict(zip(("q", "k", "v", "out", "lse", "scratch"), buffers, strict=True)))

        return launch

    def record(self, enqueue: Enqueue) -> Enqueue:
        """Return the work itself."""
        if not self._captures:
            raise NotRecorded("CUDA error: operation not permitted when stream is capturing")
        return enqueue

    def sustain(self, enqueue: Enqueue, seconds: float) -> None:
        """Run it twice, and note for how long it should have. Scratch is not poisoned between the runs of a stretch."""
        self.stretches.append(seconds)
        for _ in range(2):
            with contextlib.suppress(AssertionError):
                enqueue()

    def time(self, enqueue: Enqueue) -> Took:
        """Run it, and say what was told."""
        self.runs += 1
        enqueue()
        seconds = next(self._seconds)
        return Took(seconds, seconds + self._late)

    def clocks(self) -> Clocks | None:
        """Say what was told."""
        return self._clocks

    def trouble(self) -> str:
        """Nothing ever happens to it."""
        return ""

    def synchronize(self) -> None:
        """Nothing is under way."""


class Broken(FakeDevice):
    """A device on which nothing runs; ``told``: what it says of itself."""

    told = ""

    def synchronize(self) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def trouble(self) -> str:
        return self.told


class Loopback:
    """A link to a worker in this process that knows whether it was closed."""

    ready = json.dumps(IMPORTED)

    def __init__(self, device: FakeDevice) -> None:
        self._said: deque[str] = deque()
        self._worker = Worker(self._begin, lambda answer: self._said.append(json.dumps(answer)))
        self.device = device
        self.begun = False
        self.closed = False

    def _begin(self) -> FakeDevice:
        self.begun = True
        return self.device

    def ask(self, line: str, wall_s: float) -> str:
        """Return the answer; the time limit is not enforced."""
        self._worker.answer(line)
        return self.next_line(wall_s)

    def next_line(self, wall_s: float) -> str:
        """Return the next line."""
        return self._said.popleft()

    def last_words(self) -> str:
        """Return nothing: it cannot die alone."""
        return ""

    def code(self, wall_s: float) -> None:
        """It never ends."""

    def end(self) -> None:
        """Note it."""
        self.closed = True

    def kill(self) -> bool:
        """Nothing is left behind."""
        return True


def forever(seconds: float) -> Iterator[float]:
    """Yield the same time again and again."""
    while True:
        yield seconds
