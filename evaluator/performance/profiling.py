"""Makes profiles: plays a case's kernels with recorders, then again with repairs and reliefs."""

import os
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from avo.evaluator.binary import Binary
from avo.evaluator.compiling.residency import residency_limits
from avo.evaluator.locations import source_lines
from avo.evaluator.performance.kernel import Conditions, read
from avo.evaluator.performance.lines import ptx_around
from avo.evaluator.performance.listing import stands_out
from avo.evaluator.performance.model import CaseTime, LaunchTime, predict, time_case
from avo.evaluator.performance.passes import Pass, PlayedKernel
from avo.evaluator.performance.reliefs import critical, relief_gains
from avo.evaluator.performance.replay import SEEDS, Gain, Replay, measure_mean
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
_RECORDED = 3
"""Number of plays that are recorded: what each warp waited for takes most of a profile's time."""


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
    time = time_case(launches, least_bytes, target, measured=measure_mean)
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
        answers(score.time_us, useful_flops, least_bytes, launches, target),
        draw(longest.recorders, hot, longest.section_name(hot), loop=hot is not longest.time.kernel.outside),
        longest.code_of(hot),
    )


class _Player:
    """One launch, played several times with the constants in the middle of their ranges, and recorded.

    Its figures are the means of these plays. Its times are multiplied by ``scale``, so that they add up to the
    prediction, which is the mean of plays with other constants.
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
        self.lines, self.loop_lines = _lines(self.code, ir, source.file, time.kernel)
        self.recorders = _record(work.binary, target, time.kernel.resident, time.conditions)
        self._charges: dict[int, tuple[tuple[Charge, ...], ...]] = {}
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
            self.time_us,
            self.time.clock_hz / 1e9,
            tuple(sections),
        )

    def prologue_share(self) -> float | None:
        """Return the share of the time outside loops that passes before the first of them; None where roles are played
        by themselves, or nothing loops.
        """
        kernel = self.time.kernel
        begun: list[float] = []
        for play in (recorder.plays[0] for recorder in self.recorders):
            marks = [next((op.name for op in team.stream if isinstance(op, Mark)), None) for team in play.teams]
            begun += [play.played.marks[team, mark] for team, mark in enumerate(marks) if mark is not None]
        if not begun or len(kernel.outside.parts) > 1:
            return None
        return min(1.0, sum(begun) / len(begun) / kernel.outside.clocks)

    def code_of(self, passed: Pass) -> Code | None:
        """Return the machine code of a pass, and the PTX it was made from; None for one without instructions."""
        lines = []
        for charges, (instructions, _) in zip(self._charged(passed), passed.parts, strict=True):
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
        line = self.loop_lines.get(id(passed))
        if not line:
            return f"loop at {passed.parts[0][0][0].address:#06x}"
        return f"loop at line {line}"

    def _line(self, index: int | None) -> int | None:
        return self.lines[index] if index is not None else None

    def _section(self, passed: Pass | None, clocks: float, passes: int) -> Section:
        loop = passed is not self.time.kernel.outside
        # Where there are loops, the time outside them is what these leave: too small a rest to tell reliefs apart.
        relief = self._relief(passed) if passed and (loop or not self.time.kernel.loops) else {}
        return Section(
            self.section_name(passed),
            self.loop_lines.get(id(passed)) if loop else None,
            passes / self.work.programs,
            clocks / passes,
            clocks / self.slots * self.us_per_clock,
            dict(passed.usage) if passed else {},
            critical(relief),
            {name: gain.percent for name, gain in relief.items()},
            {name: gain.spread for name, gain in relief.items()},
            self._roles(passed, clocks / passes) if passed else (),
        )

    def _relief(self, passed: Pass) -> dict[str, Gain]:
        kernel = self.time.kernel
        place = next((place for place, loop in enumerate(kernel.loops) if loop is passed), None)
        return relief_gains(self.work.binary, self.target, kernel.resident, self.time.conditions, place)

    def _charged(self, passed: Pass) -> tuple[tuple[Charge, ...], ...]:
        if id(passed) not in self._charges:
            loop = passed is not self.time.kernel.outside
            self._charges[id(passed)] = charge(self.recorders, passed, loop=loop)
        return self._charges[id(passed)]

    def _roles(self, passed: Pass, clocks: float) -> tuple[Role, ...]:
        return tuple(
            Role(
                warps,
                _shares(charges),
                tuple(self._instruction(cost, clocks) for cost in charges[: self.most]),
                self._by_line(charges, clocks),
                self._products_and_waits(charges, clocks),
            )
            for charges, (_, warps) in zip(self._charged(passed), passed.parts, strict=True)
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

    def _products_and_waits(self, charges: Sequence[Charge], clocks: float) -> tuple[InstructionCost, ...]:
        groups: dict[tuple[str, int | None], list[Charge]] = {}
        for cost in charges:
            if stands_out(opcode := self.code.instructions[cost.index].opcode):
                groups.setdefault((opcode, self._line(cost.index)), []).append(cost)
        found = []
        for (opcode, _), own in groups.items():
            count, share = len({cost.index for cost in own}), sum(cost.share for cost in own)
            first = self._instruction(own[0], clocks)
            text = f"{count} {opcode}" if count > 1 else first.instruction
            found.append(replace(first, instruction=text, clocks_per_pass=clocks * share, share=share))
        return tuple(sorted(found, key=lambda cost: -cost.share))

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


def _lines(
    code: Sass, ir: str, file: str, kernel: PlayedKernel
) -> tuple[tuple[int | None, ...], Mapping[int, int | None]]:
    """Return the line of ``file`` that each instruction is from, and that of the loop statement of each of the kernel's
    loops by the id of its pass: the branch back has it.

    ptxas gives some products of a warpgroup the line of a neighbour: they have that of the WARPGROUP.ARRIVE before
    them. What the compiler makes on its own has no line, or that of ``def``: it counts for the nearest instruction of
    the same pass that has one, else for the loop.
    """
    places = source_lines(ir)
    heads = {place for place, text in zip(places, ir.splitlines(), strict=True) if text.lstrip().startswith("tt.func")}
    here = f"{os.path.basename(file)}:"
    numbers = [
        0 if place in heads or ":" not in place else int(place.removeprefix(here)) if place.startswith(here) else None
        for place in places
    ]
    lines = [0 if not i.line else numbers[i.line - 1] if i.line <= len(numbers) else None for i in code.instructions]
    arrived = None
    for i in code.instructions:
        if i.opcode == "WARPGROUP.ARRIVE":
            arrived = lines[i.index]
        elif i.base == "HGMMA" and arrived:
            lines[i.index] = arrived
    loops: dict[int, int | None] = {}
    for passed in kernel.loops:
        back = (lines[i.index] for part, _ in passed.parts for i in reversed(part) if i.base == "BRA")
        loops[id(passed)] = next(filter(None, back), None)
    for passed in (*kernel.loops, kernel.outside):
        for part, _ in passed.parts:
            _fill(lines, sorted(i.index for i in part), loops.get(id(passed)))
    return tuple(line or None for line in lines), loops


def _fill(lines: list[int | None], members: Sequence[int], loop: int | None) -> None:
    """Give those of ``members`` whose line is 0 that of the nearest other, else that of the loop."""
    known = [at for at in members if lines[at]]
    for at in members:
        if lines[at] == 0:
            place = bisect(known, at)
            near = known[max(0, place - 1) : place + 1]
            lines[at] = lines[min(near, key=lambda other: abs(other - at))] if near else loop


def _shares(charges: Sequence[Charge]) -> dict[str, float]:
    shares: dict[str, float] = defaultdict(float)
    for cost in charges:
        shares[cost.reason.value] += cost.share
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


@lru_cache(maxsize=2)
def _record(binary: Binary, target: Target, resident: int, conditions: Conditions) -> tuple[Recorder, ...]:
    replay, recorders = Replay.of(binary, target, resident, conditions), tuple(map(Recorder, SEEDS[:_RECORDED]))
    for recorder in recorders:
        replay.play(player=recorder)
    return recorders


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
        waiting = max(0.0, player.time.l2 - player.time.compute) * 1e6 * scale
        found.append(("waiting for l2", number, waiting))
        found.append(("waiting for hbm", number, made.time_us - player.compute_us - waiting))
        found.append(("launch overhead", number, time.overhead / len(players) * 1e6 * scale))
    all_launches = sum(launch.seconds for launch in time.launches)
    found.append(("fills", None, time.fills * 1e6 * scale))
    found.append(("waiting for hbm", None, max(0.0, time.hbm - all_launches) * 1e6 * scale))
    whole = time.seconds * 1e6 * scale
    return tuple(Part(name, launch, us, us / whole) for name, launch, us in found if abs(us) > 1e-6)
