"""What the hardware counts, read from Nsight Compute's own CSV (NVIDIA, Nsight Compute CLI and Profiling Guide, 2024.1,
https://docs.nvidia.com/nsight-compute); ``tests/evaluator/cuda/recorded`` has what it prints.
"""

import csv
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from avo.evaluator.cuda.contender import Contender, start_worker
from avo.evaluator.cuda.tools import below, run_each
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.judging.speed import CompiledPlan
from avo.evaluator.locations import source_lines
from avo.evaluator.performance.kernel import read
from avo.evaluator.plan import KernelIR
from avo.evaluator.problem import Problem
from avo.evaluator.profile import Counted, Counters, LineSamples, Source

ABSENT = "no ncu on this machine: counters are predicted only"
FORBIDDEN = (
    "ncu may not read the GPU's counters (ERR_NVGPUCTRPERM): run as root or with CAP_SYS_ADMIN, or give the driver the "
    "option NVreg_RestrictProfilingToAdminUsers=0 (https://developer.nvidia.com/ERR_NVGPUCTRPERM)"
)
_COUNTERS = {
    "time, us": ("gpu__time_duration.sum", 1e-3),
    "SM clock, GHz": ("sm__cycles_elapsed.avg.per_second", 1e-9),
    "tensor pipe busy, %": ("sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed", 1),
    "issue slots used, %": ("sm__issue_active.avg.pct_of_peak_sustained_elapsed", 1),
    "warps on an SM": ("sm__warps_active.avg.per_cycle_active", 1),
    "L2 of its peak, %": ("lts__t_sectors.avg.pct_of_peak_sustained_elapsed", 1),
    "sectors found in L2, %": ("lts__t_sector_hit_rate.pct", 1),
    "HBM of its peak, %": ("dram__throughput.avg.pct_of_peak_sustained_elapsed", 1),
    "HBM read, MB": ("dram__bytes_read.sum", 1e-6),
    "HBM written, MB": ("dram__bytes_write.sum", 1e-6),
    "shared wavefronts": ("l1tex__data_pipe_lsu_wavefronts_mem_shared.sum", 1),
    "of them by bank conflicts": ("l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum", 1),
}
"""The metric of each counter, and the factor from its base unit. ``ncu --query-metrics`` has them for ga100, ad102 and
gh100; a metric that a release does not know for a card is ``n/a``.
"""
_METRICS = ",".join(metric for metric, _ in _COUNTERS.values())
_INSTRUCTION_BYTES = 16
_LIMIT_S = 150.0
"""How long a run may take, whose kernels are replayed for every few counters, and then printing what was found."""
_MOST_LINES = 12


class _NoCounters(Exception):
    """There are none; the message is why, in one line."""


class Ncu:
    """Counts with ncu. What keeps it from counting at all is said once, and then it is not tried again."""

    def __init__(
        self,
        start: Callable[..., Contender] = start_worker,
        hold: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """``hold`` waits for the card and keeps it: only ncu needs it, and not where there is none."""
        self._start, self._hold, self._given_up = start, hold, False

    def count(self, problem: Problem, plans: Sequence[CompiledPlan], source: Source) -> Sequence[Counted | None]:
        """See ``Instruments.count``."""
        if self._given_up:
            return [None] * len(plans)
        try:
            if (tool := shutil.which("ncu")) is None:
                raise _NoCounters(ABSENT)
            with self._hold(), tempfile.TemporaryDirectory(prefix="avo-ncu-") as folder:
                return self._counted(tool, Path(folder), problem, plans, source)
        except (_NoCounters, subprocess.TimeoutExpired, EvaluatorUnavailable) as error:
            self._given_up = str(error) in (ABSENT, FORBIDDEN)
            return [Counted(why=str(error)), *[None] * (len(plans) - 1)]

    def _counted(
        self, tool: str, folder: Path, problem: Problem, plans: Sequence[CompiledPlan], source: Source
    ) -> list[Counted]:
        launched = [(each, each.plan.kernels[launch.kernel]) for each in plans for launch in each.plan.launches]
        names = [kernel.name for _, kernel in launched]
        report, log = folder / "report.ncu-rep", folder / "log"
        # Clocks as in a timed run: by default ncu locks them to the base clock.
        contender = self._start(watched=True, prefix=below(
            tool, "--export", str(report), "--log-file", str(log), "--target-processes", "all",
            "--clock-control", "none", "--nvtx", "--nvtx-include", "avo timed run/",
            "--kernel-name", f"regex:^({'|'.join(sorted(set(names)))})$",
            "--section", "SourceCounters", "--metrics", _METRICS,
        ))  # fmt: skip
        failed = run_each(contender, problem, plans, lambda case: contender.time(case, [1], _LIMIT_S, graph=False))
        said = log.read_text(errors="replace") if log.exists() else ""
        if "ERR_NVGPUCTRPERM" in said:
            raise _NoCounters(FORBIDDEN)
        if failed or not report.exists():
            raise _NoCounters(f"ncu counts nothing: {failed or _complaint(said)}")
        rows = raw_page(_printed(tool, report, "raw", "--print-units", "base", "--metrics", _METRICS))
        if [_kernel(row) for row in rows] != names:
            raise _NoCounters(f"ncu counts nothing: it saw {len(rows)} launches instead of {len(names)}")
        sampled = source_page(_printed(tool, report, "source", "--print-source", "sass"))
        if len(sampled) != len(rows):
            sampled = [[]] * len(rows)
        counters = (
            counters_of(row, samples, line_table(each, kernel, source), source)
            for row, samples, (each, kernel) in zip(rows, sampled, launched, strict=True)
        )
        return [Counted(contender.card.name, tuple(next(counters) for _ in each.plan.launches)) for each in plans]


def _printed(tool: str, report: Path, page: str, *options: str) -> str:
    """Return a page of a report as CSV."""
    command = [*below(tool), "--import", str(report), "--csv", "--page", page, *options]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False)
    if done.returncode:
        raise _NoCounters(f"ncu does not print its report: {_complaint(done.stdout + done.stderr)}")
    return done.stdout


def _complaint(said: str) -> str:
    lines = said.splitlines() or ["it says nothing"]
    return next((line for line in lines if line.startswith("==ERROR==")), lines[-1]).removeprefix("==ERROR== ")[:300]


def raw_page(text: str) -> list[dict[str, str]]:
    """Return the rows of ``--page raw``, one for each launch, by metric: without the row of units below the header, and
    whatever else ncu says.
    """
    return [row for row in csv.DictReader(_table(text)) if row["ID"]]


def _table(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith('"')]


def source_page(text: str) -> list[list[Mapping[str, float]]]:
    """Return the samples by reason to wait of each instruction, in order, of each launch of ``--page source``. It has a
    row with the kernel's name, a header, and a row for each instruction.
    """
    launches: list[list[Mapping[str, float]]] = []
    header: list[str] = []
    for row in csv.reader(_table(text)):
        if row[0] == "Kernel Name":
            launches.append([])
        elif "Source" in row:
            header = row
        elif launches:
            named = zip(header, row, strict=False)  # others end in "(Not Issued)"
            stalls = {name: number(cell) for name, cell in named if name.startswith("stall_") and " " not in name}
            launches[-1].append({name[6:].replace("_", " "): count for name, count in stalls.items() if count})
    return launches


def number(text: str | None) -> float | None:
    """Return a number as ncu prints it, with thousands separated (``1,234.5``); None for ``n/a`` and the like."""
    try:
        return float((text or "").replace(",", ""))
    except ValueError:
        return None


def counters_of(
    row: Mapping[str, str], samples: Sequence[Mapping[str, float]], lines: Mapping[int, int], source: Source
) -> Counters:
    """Return the counters of a launch; ``lines``: the line of ``source`` that the instruction at an address is from."""
    values = {name: (number(row.get(metric)), factor) for name, (metric, factor) in _COUNTERS.items()}
    by_line: dict[int | None, Counter[str]] = {}
    for index, found in enumerate(samples):
        by_line.setdefault(lines.get(index * _INSTRUCTION_BYTES), Counter()).update(found)
    return Counters(
        _kernel(row),
        {name: value * factor for name, (value, factor) in values.items() if value is not None},
        tuple(_lines(by_line, source))[:_MOST_LINES],
    )


def _kernel(row: Mapping[str, str]) -> str:
    return row["Kernel Name"].partition("(")[0]


def _lines(by_line: Mapping[int | None, Counter[str]], source: Source) -> Iterator[LineSamples]:
    whole = sum(found.total() for found in by_line.values())
    for line, found in sorted(by_line.items(), key=lambda item: -item[1].total()):
        if found:
            shares = {reason: count / whole for reason, count in found.most_common()}
            yield LineSamples(line, source.line(line), sum(shares.values()), shares)


def line_table(compiled: CompiledPlan, kernel: KernelIR, source: Source) -> Mapping[int, int]:
    """Return the line of ``source`` that the instruction at each address was made from, where it is known."""
    here, places = f"{os.path.basename(source.file)}:", source_lines(kernel.ttir)
    code = read(compiled.binaries[kernel]).code
    found = ((i.address, places[i.line - 1]) for i in code.instructions if i.line and i.line <= len(places))
    return {address: int(place.removeprefix(here)) for address, place in found if place.startswith(here)}
