"""Writes the table of operations in docs/executor.md, from what the executor's own tests run.

    python -m docs.operations

Looks at every kernel that a test runs: its operations, the element types of their operands and results, and what the
test's module compares with (its constant ``ORACLE``).
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from avo.evaluator.executor.control import KNOWN
from avo.evaluator.executor.ir import BITS, Function, Op, Type
from avo.evaluator.executor.kernel import Kernel

PAGE = Path(__file__).with_name("executor.md")
START, END = "<!-- operations: python -m docs.operations -->", "<!-- end of operations -->"
_ORDER = list(BITS)


class Recorder:
    """A pytest plugin that records which operations tests run, on which element types, and what they compare with."""

    def __init__(self) -> None:
        self.types: dict[str, set[str]] = defaultdict(set)
        self.oracles: dict[str, set[str]] = defaultdict(set)
        self.symbols: set[str] = set()
        self._oracle = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Note the test's oracle and record what its kernels hold, those of its fixtures too."""
        self._oracle = getattr(getattr(item, "module", None), "ORACLE", "")
        run = Kernel.run

        def recorded(kernel: Kernel, *args: Any, **options: Any) -> Any:
            result = run(kernel, *args, **options)
            self._record(kernel.function)
            return result

        Kernel.run = recorded  # type: ignore[method-assign]
        try:
            return (yield)
        finally:
            Kernel.run = run  # type: ignore[method-assign]

    def _record(self, function: Function) -> None:
        for op in function.body.ops:
            self.types[op.name].update(_elements(op, function.types))
            self.symbols.update(op.attributes.get("symbol", "").split())
            if self._oracle:
                self.oracles[op.name].update(self._oracle.split("; "))


def _elements(op: Op, types: tuple[Type, ...]) -> set[str]:
    kinds = [types[slot] for slot in (*op.operands, *op.results)]
    return {kind.element for kind in kinds} | {kind.target.element for kind in kinds if kind.target}


def table(recorder: Recorder) -> str:
    """Return the table, one row per operation, and the lists below it."""
    shared = Counter(oracle for oracles in recorder.oracles.values() for oracle in oracles)
    rows = ["| operation | element types | its results are compared with (up to three of them) |", "|---|---|---|"]
    for name in sorted(recorder.types):
        elements = sorted(recorder.types[name], key=_ORDER.index)
        # What few operations are compared with tells most.
        oracles = sorted(recorder.oracles[name], key=lambda oracle: (shared[oracle], oracle))[:3]
        rows.append(f"| `{name}` | {', '.join(elements)} | {'; '.join(oracles)} |")
    symbols = ", ".join(f"`{symbol}`" for symbol in sorted(symbol.strip('"') for symbol in recorder.symbols))
    unseen = ", ".join(f"`{name}`" for name in sorted(KNOWN - recorder.types.keys()))
    return "\n".join(
        (
            *rows,
            "",
            f"Supported, but run by none of these tests: {unseen}.",
            "",
            f"Functions of libdevice that tests run (`tt.extern_elementwise`): {symbols}.",
        )
    )


def main() -> int:
    """Run the executor's tests and write the table into the page, unless a test fails."""
    recorder = Recorder()
    code = pytest.main(
        ["tests/evaluator/executor", "tests/evaluator/offline", "-W", "ignore::pytest.PytestAssertRewriteWarning"],
        plugins=[recorder],
    )
    if code:
        return int(code)
    before, _, rest = PAGE.read_text().partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n\n{table(recorder)}\n\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
