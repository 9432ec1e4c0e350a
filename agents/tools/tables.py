"""The texts of tool results: compact tables for a model to read."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from avo.agents.descent import Base, Descent
from avo.agents.tools.arguments import BASE
from avo.evaluator.evaluation import CaseResult, Evaluation, Resources, Score
from avo.evaluator.inspection import Findings
from avo.evaluator.profile import LaunchProfile, Profile, Role, Section, measured_tables
from avo.evaluator.resolution import lead
from avo.evaluator.units import TFLOPS, figure
from avo.lineage_db.records import Attempt, AttemptSummary, Version

SOUND = "ok: compiles, fits, and is right on these cases"
"""How the result of a check that found no fault begins."""
_SHOWN_SHARE = 0.1
"""Sections with a smaller share of a case's time are not shown."""
_SHOWN_LINES = 8
_SHOWN_LINE = 0.01
"""Lines with a smaller share of a role's time are not shown."""
_SAME_SHARE = 0.05
"""Shares of two roles' time that differ by less are alike."""
_SHOWN_GAIN = 0.5
"""What-ifs that gain less, in percent, are only named."""
_MOST_LINE = 160
_MOST_OF_BOTH = 240
"""Characters of what was changed and what came of it."""
_SENTENCE_END = re.compile(r"(?<=[.!?;])(?= )")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table with a header row; columns are two blanks apart, numbers aligned to the right."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    right = [all(_is_number(row[column]) for row in cells[1:]) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )


def short(text: str, most: int = _MOST_LINE) -> str:
    """Return ``text`` on one line of at most ``most`` characters: whole sentences if those fill a third of it, else
    whole words.
    """
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    head = line[: most - 3]
    ends = [end.start() for end in _SENTENCE_END.finditer(head)]
    if ends and ends[-1] >= most // 3:
        return f"{head[: ends[-1]]} ..."
    words, blank, _ = head.rpartition(" ")
    return f"{words} ..." if blank else f"{head}..."


def fitting(passages: Sequence[str], most: int, between: str) -> Sequence[str]:
    """Return the first of ``passages``, one at least, that have ``most`` characters when ``between`` joins them."""
    ends = accumulate(len(each) + len(between) for each in passages)
    return passages[: max(1, sum(end - len(between) <= most for end in ends))]


def cut(text: str, most: int) -> str:
    """Return ``text``; if it has more than ``most`` characters, a note replaces its middle, where that can be done in
    whole lines.
    """
    if len(text) <= most:
        return text
    head, tail = text[: most * 3 // 4], text[-most // 4 :]
    end, start = head.rfind("\n") + 1, tail.find("\n") + 1
    if end > len(head) // 2:
        head = head[: end - 1]
    if 0 < start < len(tail) // 2:
        tail = tail[start:]
    return f"{head}\n[... {len(text) - len(head) - len(tail)} of {len(text)} characters left out here ...]\n{tail}"


def lineage(
    versions: Sequence[Version], attempts: Sequence[AttemptSummary], kind: str, descent: Descent | None = None
) -> str:
    """Return a table of the versions, then of ``attempts``, none of which is a version.

    ``descent`` knows what the attempts may have been edited from; without it only ``versions`` and ``attempts`` do.
    """
    descent = descent or Descent(versions, attempts)
    accepted = [
        (
            f"v{version.number}",
            _numbers(version.parents),
            figure(version.attempt.evaluation.geomean_tflops),
            _gain(version.attempt.evaluation.geomean_tflops, descent.parent(version.parents)),
            _outcome_first(f"seen: {version.seen}" if version.seen else "", version.change),
        )
        for version in versions
    ]
    parts = []
    if versions:
        parts.append(f"Versions, {kind} TFLOPS (geometric mean), the last is the best:")
        parts.append(table(("", "from", "TFLOPS", "gain", "outcome -- change"), accepted))
    if attempts:
        rows = [
            (
                attempt.attempt_id,
                _origin(attempt),
                figure(attempt.geomean_tflops) if attempt.geomean_tflops else attempt.status.words,
                _gain(attempt.geomean_tflops, descent.base(attempt)),
                _outcome_first(why_not(attempt), attempt.change),
            )
            for attempt in attempts
        ]
        parts += [*([""] if parts else []), "Latest attempts that were not accepted:"]
        parts.append(table(("attempt", "from", "TFLOPS", "gain", "why not -- change"), rows))
    return "\n".join(parts)


def _outcome_first(outcome: str, change: str) -> str:
    """Return both on one line, of which the outcome has half at most, and a long change does not hide it."""
    told = f"{short(outcome, _MOST_OF_BOTH // 2)} -- " if outcome else ""
    return told + short(change, _MOST_OF_BOTH - len(told))


def unresolved(attempts: Sequence[AttemptSummary]) -> str:
    """Return a table of attempts that are better in the mean and not resolved; empty where there are none."""
    rows = [
        (each.attempt_id, _origin(each), figure(each.geomean_tflops), why_not(each), short(each.change))
        for each in attempts
    ]
    return table(("attempt", "from", "TFLOPS", "why not", "change"), rows) if rows else ""


def why_not(attempt: AttemptSummary) -> str:
    """Return why an attempt is no version: its fault, or what acceptance decided; empty where that is not known."""
    return attempt.message or (attempt.decision.told if attempt.decision else "")


def verdict(evaluation: Evaluation, against: Mapping[str, float]) -> str:
    """Return the outcome on one line; ``against`` maps names to speeds in TFLOPS to compare with."""
    score = evaluation.score
    if score is None:
        said = f"{evaluation.status.words}: {evaluation.message}"
        predicted = evaluation.predicted
        return said + (f" ({figure(predicted.geomean_tflops)} predicted TFLOPS, unverified)" if predicted else "")
    found = f"correct, {figure(score.geomean_tflops)} {score.kind} TFLOPS"
    beside = (
        f"{name} has {figure(tflops)} ({score.geomean_tflops / tflops - 1:+.1%})" for name, tflops in against.items()
    )
    return "; ".join((found, *beside))


def evaluation(found: Evaluation) -> str:
    """Return tables of an evaluation's cases and resources."""
    parts = []
    if found.score:
        parts.append(_scores(found.score))
    if failed := [case for case in found.cases if not case.passed]:
        parts.append(_cases(failed))
    if found.resources:
        parts.append(_resources(found.resources))
    return "\n\n".join(parts)


def version(of: Version) -> str:
    """Return a version in full."""
    parts = [f"seen: {of.seen}"] if of.seen else []
    last = of.attempt.change
    if of.attempt.built_on is not None and last != of.change:
        parts.append(f"its last edit, made to attempt {of.attempt.built_on}: {last}")
    return attempt(of.attempt, f"version {of.number}", of.change, parts)


def attempt(of: Attempt, name: str = "", change: str = "", more: Sequence[str] = ()) -> str:
    """Return an attempt in full: that it is the version ``name``, if it is one, with ``change`` for its own words if
    that is not empty, and ``more`` lines on it.
    """
    called = f"{name} (attempt {of.id})" if name else f"attempt {of.id}"
    parts = [f"{called}, from {_origin(of) or 'nothing'}: {change or of.change}", *more]
    if of.hypothesis:
        parts.append(f"hypothesis: {of.hypothesis}")
    if of.decision:
        parts.append(of.decision.told)
    parts += [verdict(of.evaluation, {}), evaluation(of.evaluation), "", of.source]
    return "\n".join(parts)


def variants(found: Mapping[str, Findings], not_made: Mapping[str, str]) -> str:
    """Return a table of the variants that were made, the one that is predicted to be fastest first, the faults of
    others in full, and which to go on with.

    ``found`` has the base as ``BASE``: it is the first row, and what can't be told apart from it is a tie.
    """
    base, cases = found[BASE], dict[str, None]()
    speeds = {name: each.score.geomean_tflops for name, each in found.items() if each.score and name != BASE}
    ahead, rows = dict[str, float](), []
    for name in (BASE, *sorted(speeds, key=lambda name: -speeds[name])):
        each = found[name]
        if each.score is None:
            continue
        cases |= dict.fromkeys(case.case for case in each.score.cases)
        beside = "" if name == BASE or base.score is None else _beside(each, base, each.score, base.score)
        if beside.startswith("+"):
            ahead[name] = speeds[name]
        rows.append((name, each, each.score, beside))
    head = ("variant", "TFLOPS", "against the base", *cases, "registers", "spill B", "critical", "")
    table_rows = [
        (
            name, figure(score.geomean_tflops), beside,
            *(next((figure(one.tflops) for one in score.cases if one.case == case), "") for case in cases),
            max((one.registers for one in each.resources), default=""),
            max((one.spill_bytes for one in each.resources), default=""),
            "/".join(dict.fromkeys(one.critical or "none" for one in score.cases)),
            "; ".join(dict.fromkeys(", ".join(one.configurations) for one in score.cases if one.configurations)),
        )
        for name, each, score, beside in rows
    ]  # fmt: skip
    parts = [table(head, table_rows)] if rows else []
    parts += [
        f"{name}: {each.fault.status.words}: {each.fault.message}" if each.fault else f"{name}: no prediction"
        for name, each in found.items()
        if each.score is None
    ]
    parts += [f"{name}: {why}" for name, why in not_made.items()]
    if best := max(ahead, key=lambda name: ahead[name], default=""):
        tied = [name for name in ahead if name != best and _tied(found[best], found[name])]
        told = f", tied with {', '.join(tied)}" if tied else ""
        parts.append(f"Most ahead of the base is {best}{told}: go on with write_source variant: {best}, or another.")
    elif base.score is None and speeds:
        parts.append(f"The base has no prediction; the fastest is {rows[0][0]}.")
    elif speeds:
        parts.append("None is told apart from the base as faster: leave the source as it is, or try something else.")
    return "\n".join(parts)


def _beside(each: Findings, base: Findings, score: Score, of: Score) -> str:
    """Return how a variant compares with the base: ``+3.1% ± 1.7%``, a tie, or that they are the same kernel."""
    if each.plan_digest is not None and each.plan_digest == base.plan_digest:
        return "the same kernels"
    gain, width = lead(score, of)
    return f"{'tie, ' if abs(gain) <= width else ''}{gain:+.1%} ± {width:.1%}"


def _tied(one: Findings, other: Findings) -> bool:
    assert one.score is not None
    assert other.score is not None
    return not _beside(one, other, one.score, other.score).startswith(("+", "-"))


def check(findings: Findings) -> str:
    """Return the result of a check."""
    fault = findings.fault
    said = f"{fault.status.words}: {fault.message}" if fault else SOUND
    # An autotuned kernel has a result of each case for each configuration.
    failed = {case.case for case in findings.cases if not case.passed}
    passed = dict.fromkeys(f"case {case.case} passed" for case in findings.cases if case.case not in failed)
    return "\n".join([said, *passed, *((_resources(findings.resources),) if findings.resources else ())])


def script(findings: Findings) -> str:
    """Return what a script printed, and how it failed if it did."""
    parts = [findings.text.rstrip(), findings.fault.message if findings.fault else ""]
    return "\n".join(part for part in parts if part) or "(nothing was printed)"


def profile(found: Profile) -> str:
    """Return the profile of a case."""
    score = found.score
    between = f" ({TFLOPS.between(score.low_tflops, score.high_tflops)})" if score.low_tflops else ""
    parts = [f"{score.case}: {figure(score.tflops)}{between} {found.kind} TFLOPS, {figure(score.time_us)} us"]
    parts += [f"with {', '.join(score.configurations)}"] if score.configurations else []
    parts += [f"the model does not know: {doubt}" for doubt in score.doubts]
    parts.append(table(("time", "us", "share"), [(p.name, figure(p.time_us), f"{p.share:.1%}") for p in found.parts]))
    for launch in found.launches:
        parts.append(_launch(launch))
        parts += [_section(section) for section in launch.sections if section.time_us >= _SHOWN_SHARE * score.time_us]
    answers, without, open_ = [], list[str](), list[str]()
    for a in found.what_if:
        if not a.resolved and a.spread_percent:
            open_.append(a.label)
        elif abs(a.gain_percent) < _SHOWN_GAIN:
            without.append(a.label)
        else:
            gain = f"{a.gain_percent:+.1f}%"
            answers.append((a.label, gain, f"{a.spread_percent:.1f}%", figure(a.tflops), short(a.note)))
    parts += [table(("what if", "gain", "+-", "TFLOPS", "note"), answers)] if answers else []
    others = (("not resolved", open_), (f"less than {_SHOWN_GAIN}%", without))
    parts += ["\n".join(f"what if, {what}: {', '.join(labels)}" for what, labels in others if labels)]
    if found.counted:
        parts.append(found.counted.why or f"measured by ncu on {found.counted.card}, beside the prediction:")
        parts += [table(head, [(*map(short, cells),) for cells in rows]) for head, rows in measured_tables(found)]
    return "\n\n".join(parts)


def _scores(score: Score) -> str:
    rows = [
        (
            case.case,
            figure(case.tflops),
            figure(case.time_us),
            case.critical or ("none" if case.utilisation else "-"),
            _shares(case.utilisation),
            ", ".join(case.configurations),
        )
        for case in score.cases
    ]
    return table(("case", "TFLOPS", "us", "critical", "busiest", ""), rows)


def _cases(cases: Sequence[CaseResult]) -> str:
    return table(
        ("failed case", "error", "absolute error", ""),
        [(c.case, _error(c.relative_error), _error(c.absolute_error), short(c.message)) for c in cases],
    )


def _resources(resources: Sequence[Resources]) -> str:
    rows = {
        (r.kernel, r.warps, r.registers, r.spill_bytes, r.shared_bytes, r.tensor_memory_columns, r.ctas_per_sm)
        for r in resources
    }
    head = ("kernel", "warps", "registers", "spill B", "shared B", "tmem columns", "CTAs/SM")
    return table(head, sorted(rows))


def _launch(launch: LaunchProfile) -> str:
    return (
        f"kernel {launch.kernel}: {launch.programs} programs, {launch.ctas_per_sm} CTAs/SM limited by "
        f"{', '.join(launch.limited_by)}, {launch.waves:.1f} waves, {launch.registers} registers, "
        f"{launch.spill_bytes} B spilled, {launch.shared_bytes} B shared, at {launch.clock_ghz:.2f} GHz under this load"
    )


def _section(section: Section) -> str:
    lines = [f"{section.name}: {section.clocks_per_pass:.0f} clocks per pass, {section.passes_per_program:.1f} passes"]
    if section.critical:
        reliefs = ", ".join(
            f"{name} {gain:.1f} +-{spread:.1f}%"
            for name, gain in section.relief_percent.items()
            if gain >= 1 and gain > (spread := section.relief_spread[name])
        )
        lines.append(f"critical: {section.critical}; a quarter less of a resource makes a pass shorter by: {reliefs}")
    lines.append(f"busiest: {_shares(section.utilisation)}")
    for number, role in enumerate(section.roles):
        of = f"role {number}, {role.warps} warps" if len(section.roles) > 1 else f"{role.warps} warps"
        lines.append(f"{of} spend their time on: {_shares(role.reasons)}")
        same = next((other for other in range(number) if _alike(role, section.roles[other])), None)
        lines.append(_lines(role) if same is None else f"on the lines of role {same}, alike")
    return "\n".join(lines)


def _alike(one: Role, other: Role) -> bool:
    """Whether two roles spend their time on the same lines, each within a few hundredths of it."""
    mine, theirs = ({cost.line: cost.share for cost in role.lines[:_SHOWN_LINES]} for role in (one, other))
    return mine.keys() == theirs.keys() and all(abs(mine[line] - theirs[line]) <= _SAME_SHARE for line in mine)


def _lines(role: Role) -> str:
    rows = [
        (cost.line or "?", f"{cost.share:.1%}", f"{next(iter(cost.reasons), '')} {cost.waits_for}", short(cost.source))
        for cost in role.lines[:_SHOWN_LINES]
        if cost.share >= _SHOWN_LINE or cost is role.lines[0]
    ]
    return table(("line", "share", "waits for", "source"), rows)


def _shares(shares: Mapping[str, float]) -> str:
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.0%}" for name, share in ordered if share >= 0.01) or "nothing much"


def _numbers(versions: Sequence[int]) -> str:
    return ",".join(f"v{number}" for number in versions)


def _origin(of: Attempt | AttemptSummary) -> str:
    """Return what an attempt was edited from: ``#41`` for an attempt, ``v3`` for its parents."""
    return _numbers(of.parents) if of.built_on is None else f"#{of.built_on}"


def _gain(tflops: float, base: Base | None) -> str:
    return f"{tflops / base.tflops - 1:+.1%}" if tflops and base and base.tflops else ""


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _cell(value: object) -> str:
    return " ".join(str(value).split())


def _is_number(text: str) -> bool:
    return text.rstrip("%").lstrip("+-").replace(".", "", 1).isdigit() or not text
