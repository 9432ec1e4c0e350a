"""The report of a session, for people and for programs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from avo.evaluator.executor.faults import MemoryFault
from avo.evaluator.offline.autotuning import Disagreement
from avo.evaluator.offline.launches import Launch


@dataclass(frozen=True)
class SessionReport:
    """The launches and findings of a session. ``str()`` is for a terminal, ``as_json()`` for programs."""

    target: str
    sanitized: bool
    launches: tuple[Launch, ...]
    disagreements: tuple[Disagreement, ...] = ()
    """Configurations of autotuned kernels that give different results, if all were tried."""
    executed: bool = True
    """Whether the session executes launches; otherwise nothing is known of faults."""

    @property
    def faults(self) -> tuple[MemoryFault, ...]:
        """Faults, one per kernel, kind, source line and tensor."""
        return _distinct(fault for launch in self.launches for fault in launch.faults)

    @property
    def notes(self) -> tuple[MemoryFault, ...]:
        """Findings that are not faults, one per kernel, kind, source line and tensor."""
        return _distinct(note for launch in self.launches for note in launch.notes)

    @property
    def order_dependent(self) -> tuple[str, ...]:
        """One line per launch whose results depend on the order of programs, if that was checked."""
        return tuple(
            f"{launch.kernel}: a shuffled order of programs changes {difference.elements} elements of "
            f"{difference.tensor!r}, the first at {list(difference.index)}"
            for launch in self.launches
            for difference in launch.differences
        )

    @property
    def unsupported(self) -> tuple[str, ...]:
        """One line per reason why launches were skipped."""
        return tuple(dict.fromkeys(launch.unsupported for launch in self.launches if launch.unsupported))

    @property
    def clean(self) -> bool:
        """Whether nothing needs to be fixed."""
        return not (self.faults or self.order_dependent or self.disagreements)

    def __str__(self) -> str:
        kernels = Counter(launch.kernel for launch in self.launches)
        programs = sum(launch.programs for launch in self.launches)
        checked = "sanitised" if self.sanitized else "not sanitised" if self.executed else "not executed"
        lines = [
            f"{counted(len(self.launches), 'launch', 'launches')} of {counted(len(kernels), 'kernel', 'kernels')}, "
            f"{counted(programs, 'program', 'programs')}, for {self.target}, {checked}"
        ]
        sections = (
            ("faults", [fault.message for fault in self.faults]),
            ("results that depend on the order of programs", self.order_dependent),
            ("configurations that disagree", [str(one) for one in self.disagreements]),
            ("skipped", self.unsupported),
            ("notes", [note.message for note in self.notes]),
        )
        for title, entries in sections:
            if entries:
                lines.append(f"{title}:")
                lines.extend(f"  {entry}" for entry in entries)
        if self.clean and self.executed:
            lines.append("no faults")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return plain data: lists, dictionaries, strings and numbers."""
        return {
            "target": self.target,
            "sanitized": self.sanitized,
            "executed": self.executed,
            "launches": [_launch(launch) for launch in self.launches],
            "faults": [asdict(fault) for fault in self.faults],
            "notes": [asdict(note) for note in self.notes],
            "order_dependent": list(self.order_dependent),
            "disagreements": [asdict(one) for one in self.disagreements],
            "unsupported": list(self.unsupported),
        }


def _launch(launch: Launch) -> dict[str, Any]:
    counted = launch.counted.trips if launch.counted else ()
    trips = launch.execution.trips if launch.execution else counted
    return {
        "kernel": launch.kernel,
        "grid": list(launch.grid),
        "options": launch.options,
        "constants": {name: value if _plain(value) else str(value) for name, value in launch.constants.items()},
        "config": launch.config,
        "loop_trips": [int(loop.sum()) for loop in trips],
        "faults": [fault.message for fault in launch.faults],
        "notes": [note.message for note in launch.notes],
        "unsupported": launch.unsupported,
    }


def _plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _distinct(found: Iterable[MemoryFault]) -> tuple[MemoryFault, ...]:
    by_place: dict[Sequence[str], MemoryFault] = {}
    for fault in found:
        by_place.setdefault((fault.kernel, fault.kind, fault.location, fault.tensor), fault)
    return tuple(by_place.values())


def counted(number: int, one: str, several: str) -> str:
    """Return a number with its noun."""
    return f"{number} {one if number == 1 else several}"
