"""Printing a profile: the parts of the time, then each loop that matters, then what repairs would gain."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from avo.evaluator.profile import measured_tables
from avo.evaluator.units import Unit, figure
from avo.watch.tables import one_line, row, table
from avo.watch.wording import gained, spread

if TYPE_CHECKING:
    from avo.evaluator.profile import InstructionCost, LaunchProfile, Profile, Role, Section

SHOWN_SHARE = 0.1
"""Share of the case's time below which a section is not shown in detail."""
SHOWN_LINES = 8
SHOWN_INSTRUCTIONS = 6


def render(profile: "Profile", unit: Unit) -> RenderableType:
    """Return the profile of one case as text and tables, one below the other; ``unit`` is that of the case."""
    score = profile.score
    us = "" if unit.nbytes else f", {figure(score.time_us)} us"
    parts: list[RenderableType] = [
        Text(),
        Text(f"{score.case}: {unit.said(score.tflops, profile.kind, spread(score, unit))}{us}", "bold"),
        *([Text(f"with {', '.join(map(one_line, score.configurations))}")] if score.configurations else []),
        *(Text(f"not known to the model: {one_line(doubt)}") for doubt in score.doubts),
        Text(),
        _parts(profile),
        Text(),
        _launches(profile),
    ]
    for launch in profile.launches:
        for section in launch.sections:
            if section.time_us >= SHOWN_SHARE * score.time_us:
                parts += [Text(), *_section(section, launch)]
    return Group(*parts, Text(), _what_if(profile, unit), *_measured(profile))


def _measured(profile: "Profile") -> Iterator[RenderableType]:
    """Yield what a profiler measured, in tables of their own, or why it did not."""
    if profile.counted is None:
        return
    yield Text()
    yield Text(one_line(profile.counted.why or f"measured by ncu on {profile.counted.card}, clocks not locked"), "bold")
    for (first, *head), rows in measured_tables(profile):
        made = _code_table(first, *(f">{name.upper()}" for name in head[:2]), *map(str.upper, head[2:]))
        for cells in rows:
            _code_row(made, *cells)
        yield Group(made, Text())


def _parts(profile: "Profile") -> RenderableType:
    several = len(profile.launches) > 1
    made = table(f"{profile.kind.upper()} TIME", ">us", ">SHARE")
    for part in profile.parts:
        of = f"{profile.launches[part.launch].kernel}: " if several and part.launch is not None else ""
        row(made, f"{of}{part.name}", figure(part.time_us), f"{part.share:.1%}")
    row(made, "together", figure(profile.score.time_us), "100.0%")
    return made


def _launches(profile: "Profile") -> RenderableType:
    made = table("KERNEL", ">PROGRAMS", ">CTAS/SM", "LIMITED BY", ">WAVES", ">REGISTERS", ">SPILL B", ">GHZ", gap=1)
    for launch in profile.launches:
        row(
            made, launch.kernel, launch.programs, launch.ctas_per_sm, ", ".join(launch.limited_by),
            f"{launch.waves:.1f}", launch.registers, launch.spill_bytes, f"{launch.clock_ghz:.2f}",
        )  # fmt: skip
    return made


def _section(section: "Section", launch: "LaunchProfile") -> list[RenderableType]:
    title = f"{one_line(launch.kernel)}, {section.name}: {section.clocks_per_pass:.0f} clocks per pass"
    if section.line is not None:
        title += f", {section.passes_per_program:.1f} passes per program"
    parts: list[RenderableType] = [Text(title, "bold")]
    facts = Table.grid(padding=(0, 2, 0, 0))
    if section.relief_percent:
        reliefs = {name: _relief(section, name) for name, gain in section.relief_percent.items() if gain >= 1}
        if best := reliefs.pop(section.critical, ""):
            facts.add_row("critical", Text(f"{section.critical}: a quarter less of it makes passes {best} shorter"))
        facts.add_row("then" if best else "critical", Text(_listed(reliefs)))
    busy = sorted(section.utilisation.items(), key=lambda item: -item[1])
    facts.add_row("busiest", Text(_listed({name: f"{share:.0%}" for name, share in busy if share >= 0.005})))
    parts.append(facts)
    for number, role in enumerate(section.roles):
        of = f"role {number}, {role.warps} warps" if len(section.roles) > 1 else "warps"
        spent = _listed({reason: f"{share:.0%}" for reason, share in role.reasons.items() if share >= 0.005})
        parts += [Text(), Text(f"{of}: {spent}"), _lines(role)]
        parts += [Text(), _instructions(role.instructions[:SHOWN_INSTRUCTIONS], "INSTRUCTION")]
        if role.products_and_waits:
            parts += [Text(), _instructions(role.products_and_waits, "PRODUCTS AND WAITS")]
    return parts


def _relief(section: "Section", name: str) -> str:
    gain, spread = section.relief_percent[name], section.relief_spread[name]
    return f"{gain:.1f} ±{spread:.1f}%" if gain > spread else f"not resolved (±{spread:.1f}%)"


def _listed(items: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in items.items()) or "nothing much"


def _lines(role: "Role") -> RenderableType:
    made = _code_table(">LINE", ">CLOCKS", ">SHARE", "MOSTLY", "SOURCE")
    for cost in role.lines[:SHOWN_LINES]:
        reason, share = next(iter(cost.reasons.items()))
        mostly = f"{_waiting(reason, cost.waits_for)} {share / cost.share:.0%}"
        _code_row(made, cost.line or "?", f"{cost.clocks_per_pass:.0f}", f"{cost.share:.1%}", mostly, cost.source)
    return made


def _instructions(costs: "Sequence[InstructionCost]", title: str) -> RenderableType:
    made = _code_table(">LINE", ">CLOCKS", ">SHARE", "WAITS FOR", title)
    for cost in costs:
        place = f" at {cost.waits_for_line}" if cost.waits_for_line not in (None, cost.line) else ""
        _code_row(
            made, cost.line or "?", f"{cost.clocks_per_pass:.0f}", f"{cost.share:.1%}",
            _waiting(cost.reason, cost.waits_for) + place, f"{cost.address:#06x} {cost.instruction}",
        )  # fmt: skip
    return made


def _waiting(reason: str, waits_for: str) -> str:
    """Return the reason with the instruction that is waited for, if there is one: ``scoreboard, LDG``."""
    known = waits_for and reason in ("scoreboard", "matrix product")
    return f"{reason}, {waits_for.partition('.')[0]}" if known else reason


def _code_table(*columns: str) -> Table:
    """Return a table whose last column holds code, cut if it is too long for the terminal."""
    made = table(*columns, gap=1)
    for column in made.columns[:-1]:
        column.no_wrap = True
    return made


def _code_row(made: Table, *cells: object) -> None:
    texts = [Text(one_line(str(cell))) for cell in cells]
    texts[-1].no_wrap, texts[-1].overflow = True, "ellipsis"
    made.add_row(*texts)


def _what_if(profile: "Profile", unit: Unit) -> RenderableType:
    made = table("WHAT IF", f">{profile.kind.upper()} GAIN", ">±", f">{unit.name}", "")
    for answer in profile.what_if:
        shown = gained(answer.gain_percent, answer.spread_percent)
        spread = "" if shown == "none" else f"{answer.spread_percent:.1f}%"
        tflops = "" if shown == "not resolved" else unit.figure(answer.tflops)
        row(made, answer.label, shown, spread, tflops, one_line(answer.note))
    return made
