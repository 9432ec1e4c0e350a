"""Cases that a Python function computes instead of a plan: a library's, or a kernel's own host code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch

from avo.evaluator.cuda.blame import first_line
from avo.evaluator.cuda.device import Device, HostFault
from avo.evaluator.cuda.libraries import Attend
from avo.evaluator.cuda.running import Inputs, Running
from avo.evaluator.modules import imported
from avo.evaluator.plan import Buffer, LaunchPlan
from avo.evaluator.problem import Case, Problem
from avo.evaluator.problems.dense import softmax_scale

_LSE_ROWS = 1024


def call_alone(problem: Problem, case: Case) -> LaunchPlan:
    """Return a plan that has the buffers of a case's call, and does nothing."""
    specs = problem.call(case).tensors
    return LaunchPlan(case.name, tuple(Buffer(s.name, s.dtype, s.size, s.role) for s in specs), (), ())


@contextmanager
def hosted() -> Iterator[None]:
    """Raise ``HostFault`` for what host code raises within; CUDA's errors and want of memory stay what they are."""
    try:
        yield
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and "CUDA" in str(error)):
            raise
        raise HostFault(f"{type(error).__name__}: {first_line(error)}") from None


@cache
def entry_of(file: Path, name: str) -> Callable[..., Any]:
    """Return the entry function of a kernel's file, which is imported once."""
    found: Callable[..., Any] = getattr(imported(file, f"called_{file.stem}"), name)
    return found


class EntryRunning(Running):
    """A case that the entry function of a kernel's module computes, as whoever uses the kernel calls it."""

    def __init__(
        self, device: Device, problem: Problem, entry: Callable[..., Any], case: Case, beside: Running | None = None
    ) -> None:
        super().__init__(device, problem, case, call_alone(problem, case), (), beside)
        call = problem.call(case)
        self._entry, self._names, self._scalars = entry, [spec.name for spec in call.tensors], dict(call.scalars)

    def enqueue(self) -> None:
        """Call it on the inputs and outputs of the case."""
        with hosted():
            self._entry(*map(self.view, self._names), **self._scalars)


class LibraryRunning(Running):
    """A case that a library computes instead of a plan."""

    def __init__(
        self, device: Device, problem: Problem, attend: Attend, case: Case, beside: Running | None = None
    ) -> None:
        super().__init__(device, problem, case, call_alone(problem, case), (), beside)
        self._attend = attend
        self._result: torch.Tensor | None = None

    def enqueue(self) -> None:
        """Enqueue the library's work."""
        with hosted():
            self._result = self._attend(*(self.view(name) for name in ("q", "k", "v")))

    def collect(self) -> None:
        """Copy what the library returned into ``out``, and compute lse for the heads that are compared."""
        assert self._result is not None
        self.view("out").copy_(self._result)
        self.view("lse").zero_()
        for batch, head in self.compared()["queries"].any(-1).nonzero().tolist():
            self._take_lse(batch, head)

    def _take_lse(self, batch: int, head: int) -> None:
        kv_head = head // (self.case.heads // self.case.kv_heads)
        self.view("lse")[batch, head] = lse(self.view("q")[batch, head], self.view("k")[batch, kv_head], self.case)


class GradientsRunning(LibraryRunning):
    """A case of a backward pass that a library computes by torch's autograd.

    It is given the out that the library itself computed, and the lse of the keys at hand: a candidate's may be of more.
    """

    ungraphed = "torch runs a backward pass on the stream of its forward pass, which is not recorded"

    def __init__(
        self, device: Device, problem: Problem, attend: Attend, case: Case, beside: Running | None = None
    ) -> None:
        super().__init__(device, problem, attend, case, beside)
        self._leaves: tuple[torch.Tensor, ...] = ()
        self._computed: dict[str, torch.Tensor] = {}
        self._gradients: tuple[torch.Tensor, ...] = ()

    def renew(self, seed: int, *, whole: bool = False) -> None:
        """See ``Running.renew``."""
        self._computed = {}
        super().renew(seed, whole=whole)

    def prepare(self) -> None:
        """Have the library compute out."""
        self._leaves = tuple(self.view(name).detach().requires_grad_() for name in ("q", "k", "v"))
        with hosted():
            self._result = self._attend(*self._leaves)
        self.view("out").copy_(self._result.detach())
        for batch, head in product(range(self.case.batch), range(self.case.heads)):
            self._take_lse(batch, head)
        self._computed = {name: self.flat(name).clone() for name in ("out", "lse")}

    def enqueue(self) -> None:
        """Enqueue the library's backward pass."""
        assert self._result is not None
        with hosted():
            self._gradients = torch.autograd.grad(self._result, self._leaves, self.view("dout"), retain_graph=True)

    def collect(self) -> None:
        """Copy the gradients into ``dq``, ``dk`` and ``dv``."""
        for name, gradient in zip(("dq", "dk", "dv"), self._gradients, strict=True):
            self.view(name).copy_(gradient)

    def _inputs(self) -> Inputs:
        return {**super()._inputs(), **self._computed}


def library_running(
    device: Device, problem: Problem, attend: Attend, case: Case, beside: Running | None = None
) -> Running:
    """Return a case that a library computes."""
    backward = any(output.name == "dq" for output in problem.outputs)
    return (GradientsRunning if backward else LibraryRunning)(device, problem, attend, case, beside)


def lse(q: torch.Tensor, k: torch.Tensor, case: Case) -> torch.Tensor:
    """Return the log of the sum of exponentials of one head, float32 [q_len], computed some rows at a time."""
    parts = []
    for first in range(0, case.q_len, _LSE_ROWS):
        scores = (q[first : first + _LSE_ROWS].float() @ k.float().T) * softmax_scale(case)
        if case.causal:
            last = torch.arange(first, first + len(scores), device=q.device) + case.kv_len - case.q_len
            scores.masked_fill_(torch.arange(case.kv_len, device=q.device) > last[:, None], -torch.inf)
        parts.append(scores.logsumexp(-1))
    return torch.cat(parts)
