"""Runs a package's functions offline, compares what they return with a reference, and keeps what was found."""

import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import torch

from evaluator.errors import EvaluatorError
from evaluator.executor.triton_offline import Session


@dataclass(frozen=True)
class Case:
    """One call of a package's function."""

    name: str
    outcome: str
    """``agreed``, ``differs``, ``fault``, ``unsupported``, ``error``, or ``refused`` by the package or Triton."""
    launches: int
    kernels: tuple[str, ...]
    message: str = ""


@dataclass
class Trial:
    """The cases of one package. Suites call ``case`` for each."""

    package: str
    session: Session
    cases: list[Case] = field(default_factory=list)

    def case(
        self,
        name: str,
        run: Callable[[], Any],
        expected: Callable[[], Any],
        *,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> None:
        """Call ``run`` and then ``expected``, which may see what ``run`` left, and compare their results.

        Results are tensors, or nested tuples, lists and dictionaries of them. Tolerances default to those of
        ``torch.testing`` for the less precise dtype of the two.
        """
        self.session.take_report()
        difference = error = ""
        ours = False
        try:
            got = run()
            if not self.session.report().unsupported:
                difference = _difference(got, expected(), rtol, atol)
        except Exception as raised:
            where = traceback.extract_tb(raised.__traceback__)[-1]
            first = (str(raised).strip().splitlines() or [""])[0]
            error = f"{type(raised).__name__}: {first[:300]} [{where.filename.rpartition('/')[2]}:{where.lineno}]"
            ours = isinstance(raised, EvaluatorError) or "/evaluator/" in where.filename
        report = self.session.take_report()
        found = (
            ("unsupported", "; ".join(report.unsupported)),
            ("error" if ours else "refused", error),
            ("fault", "; ".join(fault.message for fault in report.faults)),
            ("differs", difference),
        )
        outcome, message = next(((kind, text) for kind, text in found if text), ("agreed", ""))
        kernels = tuple(dict.fromkeys(launch.kernel for launch in report.launches))
        self.cases.append(Case(name, outcome, len(report.launches), kernels, message))

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "package": self.package,
            "version": version(self.package),
            "cases": [asdict(case) for case in self.cases],
        }


def gradients(
    function: Callable[..., Any], inputs: Iterable[torch.Tensor], *others: Any, seed: int = 1, **options: Any
) -> tuple[Any, ...]:
    """Return the results of a function of tensors, and the gradients of a random projection of the first for each."""
    leaves = [tensor.detach().clone().requires_grad_(tensor.is_floating_point()) for tensor in inputs]
    # Through an operator, so that functions that write into their inputs find no leaves.
    passed = [leaf * 1 if leaf.requires_grad else leaf for leaf in leaves]
    result = function(*passed, *others, **options)
    first = result[0] if isinstance(result, tuple) else result
    generator = torch.Generator().manual_seed(seed)
    first.backward(torch.randn(first.shape, generator=generator).to(first.dtype))
    return first.detach(), [leaf.grad for leaf in leaves if leaf.requires_grad]


def _difference(got: Any, expected: Any, rtol: float | None, atol: float | None) -> str:
    if isinstance(got, torch.Tensor) and isinstance(expected, torch.Tensor):
        if rtol is None and got.is_floating_point():
            rough = max((got.dtype, expected.dtype), key=lambda dtype: torch.finfo(dtype).eps)
            rtol, atol = _TOLERANCES.get(rough, (0.1, 0.1))
        try:
            torch.testing.assert_close(got, expected, rtol=rtol, atol=atol, equal_nan=True, check_dtype=False)
        except AssertionError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return "; ".join(lines[:3])
        return ""
    if isinstance(got, tuple | list) and isinstance(expected, torch.Tensor):
        got = got[0]  # what else it computed on the way comes behind
        return _difference(got, expected, rtol, atol)
    if isinstance(got, tuple | list) and isinstance(expected, tuple | list):
        if len(got) != len(expected):
            return f"{len(got)} results instead of {len(expected)}"
        for a, b in zip(got, expected, strict=True):
            if text := _difference(a, b, rtol, atol):
                return text
        return ""
    if isinstance(got, dict) and isinstance(expected, dict):
        return _difference(list(got.values()), [expected[key] for key in got], rtol, atol)
    if isinstance(got, torch.Tensor) or isinstance(expected, torch.Tensor):
        return _difference(torch.as_tensor(got), torch.as_tensor(expected), rtol, atol)
    return "" if got == expected else f"{got!r} instead of {expected!r}"


_TOLERANCES = {
    torch.float64: (1e-7, 1e-7),
    torch.float32: (1e-4, 1e-4),
    torch.float16: (5e-3, 5e-3),
    torch.bfloat16: (3e-2, 3e-2),
}
