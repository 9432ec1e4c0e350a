"""Makes profiles: plays a case's kernels with a recorder, then again with repairs and reliefs."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from avo.evaluator.binary import Binary
from avo.evaluator.compiling.residency import residency_limits
from avo.evaluator.locations import source_lines
from avo.evaluator.performance.kernel import Conditions, read
from avo.evaluator.performance.lines import ptx_around
from avo.evaluator.performance.model import CaseTime, LaunchTime, predict, time_case
from avo.evaluator.performance.passes import Pass, PlayedKernel
from avo.evaluator.performance.reliefs import RESOLVED_PERCENT, relief_percent, reliefs
from avo.evaluator.performance.replay import Replay
from avo.evaluator.performance.sass import Code as Sass
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.performance.simulate import Mark
from avo.evaluator.performance.stalls import Charge, Reason, Recorder, charge
from avo.evaluator.performance.timeline import draw
from avo.evaluator.performance.what_if import answers
from avo.evaluator.profile import (
    Code,
    CodeLine,
    InstructionCost,
    LaunchProfile,
    LineCost,
    Part,
    Profile,
    Role,
    Section,
    Source,
)
from avo.evaluator.target import ScoreKind, Target
from avo.evaluator.work import LaunchWork

MOST_COSTS = 12
"""Number of instructions and of lines listed for each role by default, the most expensive."""
_HARDLY_BUSY = 0.02
"""A pipe that is busy for a smaller fraction is not tried as the critical one."""


def explain(
    case: str,
    useful_flops: int,
    least_bytes: int,
    launches: Sequence[LaunchWork],
    target: Target,
    source: Source,
    irs: Sequence[str],
    *,
    most: int | None = MOST_COSTS,
) -> Profile:
    """Predict like ``predict``, and explain the result.

    ``irs`` has the IR text of each launch's kernel, whose locations lead to the lines of ``source``. ``most`` is the
    number of instructions and of lines listed for each role, the most expensive; None: all. Raises what ``predict``
    raises.
    """
    score = predict(case, useful_flops, least_bytes, launches, target)
    time = time_case(launches, least_bytes, target)
    scale = score.time_us / (time.seconds * 1e6)
    players = [
        _Player(work, spent, target, source, ir, most, scale)
        for work, spent, ir in zip(launches, time.launches, irs, strict=True)
    ]
    profiles = tuple(player.profile() for player in players)
    longest = max(players, key=lambda player: player.time.seconds)
    hot = longest.time.hot
    return Profile(
        ScoreKind.PREDICTED,
        target.name,
        score,
        _parts(players, profiles, time, scale),
        profiles,
        answers(useful_flops, least_bytes, launches, time.seconds, target, scale),
        draw(longest.recorder, hot, longest.section_name(hot), loop=hot is not longest.time.kernel.outside),
        longest.code_of(hot),
    )


class _Player:
    """One launch, played once with the constants in the middle of their ranges, and recorded.

    Its times are multiplied by ``scale``, so that they add up to the prediction, which is the mean of many plays.
    """

    def __init__(
        self,
        work: LaunchWork,
        time: LaunchTime,
        target: Target,
        source: Source,
        ir: str,
        most: int | None,
        scale: float,
    ) -> None:
        self.work, self.time, self.target, self.source = work, time, target, source
        self.most = most
        self.code = read(work.binary).code
        self.lines = _lines(self.code, ir, source.file)
        self.recorder = _record(work.binary, target, time.kernel.resident, time.conditions)
        self.slots = target.sms * time.kernel.resident // work.binary.ctas_per_program
        self.us_per_clock = 1e6 / time.clock_hz * scale
        self.compute_us = time.compute * 1e6 * scale
        self.time_us = time.seconds * 1e6 * scale

    def profile(self) -> LaunchProfile:
        work, kernel = self.work, self.time.kernel
        limits = residency_limits(work.binary, self.target)
        fitting = min(limits.values())
        by_resources = tuple(name for name, most in limits.items() if most == fitting)
        spent = [float(row.sum()) for row in self.time.program_clocks]
        sections = [self._section(kernel.outside, spent[0], work.programs)]
        for loop, passed, clocks in zip(work.loops, self.time.passes, spent[1:], strict=True):
            if clocks:
                sections.append(self._section(passed, clocks, int(loop.trips.sum())))
        names = Counter(section.name for section in sections)
        numbers: Counter[str] = Counter()
        for place, section in enumerate(sections):
            if names[section.name] > 1:
                numbers[section.name] += 1
                sections[place] = replace(section, name=f"{section.name} #{numbers[section.name]}")
        return LaunchProfile(
            work.binary.name,
            work.programs,
            kernel.resident,
            by_resources if kernel.resident == fitting else ("grid",),
            work.programs / self.slots,
            work.binary.registers,
            work.binary.spill_bytes,
            work.binary.shared_bytes,
            self.time.limiter,
            self.time_us,
            tuple(sections),
        )

    def prologue_share(self) -> float | None:
        """Return the share of the time outside loops that passes before the first of them; None where roles are played
        by themselves, or nothing loops.
        """
        kernel = self.time.kernel
        play = self.recorder.plays[0]
        marks = [next((op.name for op in team.stream if isinstance(op, Mark)), None) for team in play.teams]
        begun = [play.played.marks[team, mark] for team, mark in enumerate(marks) if mark is not None]
        if not begun or len(kernel.outside.parts) > 1:
            return None
        return min(1.0, sum(begun) / len(begun) / kernel.outside.clocks)

    def code_of(self, passed: Pass) -> Code | None:
        """Return the machine code of a pass, and the PTX it was made from; None for one without instructions."""
        lines = []
        loop = passed is not self.time.kernel.outside
        for charges, (instructions, _) in zip(charge(self.recorder, passed, loop=loop), passed.parts, strict=True):
            spent: dict[int, list[Charge]] = defaultdict(list)
            for cost in charges:
                spent[cost.index].append(cost)
            for i in sorted(instructions, key=lambda i: i.address):
                own = spent[i.index]
                share = sum(cost.share for cost in own)
                reason = own[0].reason.value if own else ""
                lines.append(CodeLine(i.address, _text(i), self._line(i.index), reason, share * passed.clocks, share))
        if not lines:
            return None
        members = [i for instructions, _ in passed.parts for i in instructions]
        return Code(
            self.work.binary.name, self.section_name(passed), tuple(lines), ptx_around(self.work.binary, members)
        )

    def section_name(self, passed: Pass | None) -> str:
        """Return the name of a pass."""
        if passed is None:
            return "unrolled loop"
        if passed is self.time.kernel.outside:
            return "outside loops"
        line = self._loop_line(passed)
        if line is None:
            return f"loop at {passed.parts[0][0][0].address:#06x}"
        return f"loop at line {line}"

    def _loop_line(self, passed: Pass) -> int | None:
        """Return the line of the loop statement: its own branch back has it."""
        for instructions, _ in passed.parts:
            for i in reversed(instructions):
                if i.base == "BRA" and (line := self._line(i.index)):
                    return line
        return None

    def _line(self, index: int | None) -> int | None:
        return self.lines[index] if index is not None else None

    def _section(self, passed: Pass | None, clocks: float, passes: int) -> Section:
        loop = passed is not self.time.kernel.outside
        # Where there are loops, the time outside them is what these leave: too small a rest to tell reliefs apart.
        relief = self._relief(passed) if passed and (loop or not self.time.kernel.loops) else {}
        best = max(relief, key=lambda name: relief[name], default="")
        return Section(
            self.section_name(passed),
            self._loop_line(passed) if passed and loop else None,
            passes / self.work.programs,
            clocks / passes,
            clocks / self.slots * self.us_per_clock,
            dict(passed.usage) if passed else {},
            best if best and relief[best] >= RESOLVED_PERCENT else "",
            relief,
            self._roles(passed, clocks / passes, loop) if passed else (),
        )

    def _relief(self, passed: Pass) -> dict[str, float]:
        kernel = self.time.kernel
        pipes = tuple(name for name, busy in passed.usage.items() if busy > _HARDLY_BUSY and name != "issue")
        relieved = _relieve(self.work.binary, self.target, kernel.resident, pipes, self.time.conditions)
        return relief_percent(kernel, passed, relieved)

    def _roles(self, passed: Pass, clocks: float, loop: bool) -> tuple[Role, ...]:
        charged = charge(self.recorder, passed, loop=loop)
        return tuple(
            Role(
                warps,
                _shares(charges),
                tuple(self._instruction(cost, clocks) for cost in charges[: self.most]),
                self._by_line(charges, clocks),
            )
            for charges, (_, warps) in zip(charged, passed.parts, strict=True)
            if charges
        )

    def _instruction(self, cost: Charge, clocks: float) -> InstructionCost:
        i = self.code.instructions[cost.index]
        setter = None if cost.setter is None else self.code.instructions[cost.setter]
        line = self._line(cost.index)
        return InstructionCost(
            i.address,
            _text(i),
            line,
            self.source.line(line),
            cost.reason.value,
            setter.opcode if setter else "",
            self._line(cost.setter),
            clocks * cost.share,
            cost.share,
        )

    def _setter(self, charges: Sequence[Charge]) -> str:
        shares: dict[str, float] = defaultdict(float)
        for cost in charges:
            if cost.setter is not None:
                shares[self.code.instructions[cost.setter].opcode] += cost.share
        return max(shares, key=lambda name: shares[name], default="")

    def _by_line(self, charges: Sequence[Charge], clocks: float) -> tuple[LineCost, ...]:
        lines: dict[int | None, list[Charge]] = {}
        for cost in charges:
            line = self._line(cost.index)
            if cost.reason is Reason.PRODUCT and cost.setter is not None:
                line = self._line(cost.setter)  # the wait, which the compiler makes, may have the line of the loop
            lines.setdefault(line, []).append(cost)
        costs = [
            LineCost(line, self.source.line(line), clocks * share, share, _shares(own), self._setter(own))
            for line, own in lines.items()
            if (share := sum(cost.share for cost in own))
        ]
        return tuple(sorted(costs, key=lambda cost: -cost.share)[: self.most])


def _text(i: Instruction) -> str:
    return " ".join(filter(None, (f"@{i.predicate}" if i.predicate else "", i.opcode, i.operands)))


def _lines(code: Sass, ir: str, file: str) -> tuple[int | None, ...]:
    """Return the line of ``file`` that each instruction is from. ptxas gives some products of a warpgroup the line of a
    neighbour: they have that of the WARPGROUP.ARRIVE before them.
    """
    places = [place.rpartition(":") for place in source_lines(ir)]
    numbers = [int(line) if name == os.path.basename(file) else None for name, _, line in places]
    lines = [numbers[i.line - 1] if i.line and i.line <= len(numbers) else None for i in code.instructions]
    arrived = None
    for i in code.instructions:
        if i.opcode == "WARPGROUP.ARRIVE":
            arrived = lines[i.index]
        elif i.base == "HGMMA" and arrived is not None:
            lines[i.index] = arrived
    return tuple(lines)


def _shares(charges: Sequence[Charge]) -> dict[str, float]:
    shares: dict[str, float] = defaultdict(float)
    for cost in charges:
        shares[cost.reason.value] += cost.share
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


@lru_cache(maxsize=2)
def _record(binary: Binary, target: Target, resident: int, conditions: Conditions) -> Recorder:
    recorder = Recorder()
    Replay.of(binary, target, resident, conditions).play(player=recorder)
    return recorder


@lru_cache(maxsize=16)
def _relieve(
    binary: Binary, target: Target, resident: int, pipes: tuple[str, ...], conditions: Conditions
) -> Mapping[str, PlayedKernel]:
    return reliefs(Replay.of(binary, target, resident, conditions), pipes)


def _parts(
    players: Sequence[_Player], profiles: Sequence[LaunchProfile], time: CaseTime, scale: float
) -> tuple[Part, ...]:
    """Return the parts of the case's time, in order; they add up to the whole."""
    found: list[tuple[str, int | None, float]] = []
    for number, (player, made) in enumerate(zip(players, profiles, strict=True)):
        outside, *loops = made.sections
        before = player.prologue_share()
        if before is None:
            found.append(("outside loops", number, outside.time_us))
        else:
            found.append(("prologue", number, before * outside.time_us))
        found += [(loop.name, number, loop.time_us) for loop in loops]
        if before is not None:
            found.append(("epilogue", number, (1 - before) * outside.time_us))
        played = sum(section.time_us for section in made.sections)
        found.append(("wave tail", number, player.compute_us - played))
        found.append((f"waiting for {player.time.limiter}", number, made.time_us - player.compute_us))
        found.append(("launch overhead", number, time.overhead / len(players) * 1e6 * scale))
    all_launches = sum(launch.seconds for launch in time.launches)
    found.append(("fills", None, time.fills * 1e6 * scale))
    found.append(("waiting for hbm", None, max(0.0, time.hbm - all_launches) * 1e6 * scale))
    whole = time.seconds * 1e6 * scale
    return tuple(Part(name, launch, us, us / whole) for name, launch, us in found if abs(us) > 1e-6)
