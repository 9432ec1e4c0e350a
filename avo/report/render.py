"""Rendering a report as a single HTML page that loads nothing, or as Markdown. All text is escaped by default."""

import re
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from avo.evaluator.evaluation import Fault
from avo.evaluator.target import TARGETS, score_kind, unchecked
from avo.evaluator.units import TFLOPS, figure, units_of
from avo.lineage_db.decision import unresolved
from avo.lineage_db.records import Run
from avo.report import data
from avo.report.code import highlighted
from avo.report.data import Charts, Report
from avo.report.figures import NARROW, WIDE, draw_bars, draw_edits, draw_trajectory
from avo.subject import subject
from avo.watch.plot import draw, legend
from avo.watch.scores import geomean, width
from avo.watch.trajectory import Trajectory
from avo.watch.wording import (
    MOST_WORDS,
    SPREAD,
    briefly_measured,
    busiest,
    counted,
    critical,
    cut,
    duration,
    ending,
    first_line,
    gained,
    in_a_list,
    looked,
    measured,
    minimal_kernel,
    percent,
    place,
    printable,
    resolved,
)

if TYPE_CHECKING:
    from avo.evaluator.profile import Profile, Section

MOST_INTERVENTIONS, MOST_DIRECTIONS = 50, 10
"""Most interventions of the supervisor that are shown, the latest, and most directions of each."""

PLOT = (96, 26)
"""Columns and rows of the trajectory in Markdown."""

_LOOKALIKES = str.maketrans("<&`[]", "(+'()")
_MARKDOWN = re.compile(r"([\\`*_\[\]|~#])")


def to_html(report: Report, now: datetime, profiles: "Sequence[Profile] | Fault | None" = None) -> str:
    """Return the report as an HTML page. ``profiles`` of the best version, or the fault that prevented them, add a
    section.

    The page loads nothing, and its content security policy allows no script but the page's own, even if a candidate's
    text contains markup.
    """
    environment = html_environment()
    style, script = (inlined(environment, name) for name in ("style.css", "script.js"))
    policy = policy_of(style, script)
    best = report.view.best
    names = names_of(report, now) | figures(report.unit, f"{report.run.name}@{best.number if best else ''}", report.run)
    names |= {
        "title": f"{_title(report)}: an AVO run",
        "heading": _title(report),
        "style": style,
        "script": script,
        "policy": policy,
        "profiles": profiles,
    }
    names["sections"] = _sections(report, profiles is not None)
    return environment.get_template("report.html.j2").render(names)


def to_markdown(report: Report, now: datetime) -> str:
    """Return the report as Markdown, short enough for a README."""
    environment = _environment(autoescape=False, finalize=_plain)
    names = names_of(report, now) | {"plot": _plot, "heading": _title(report)}
    text = environment.get_template("report.md.j2").render(names)
    return re.sub(r"\n{3,}", "\n\n", text)


def html_environment() -> Environment:
    """Return the environment of the report's HTML templates, which escape all text."""
    return _environment(autoescape=True, finalize=_clean)


def inlined(environment: Environment, name: str) -> Markup:
    """Return a style sheet or a script, to stand in a page as it is."""
    return Markup(environment.get_template(f"{name}.j2").render())


def policy_of(style: str, script: str) -> str:
    """Return the content security policy of a page that has this style sheet and this script, and loads nothing."""
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def figures(unit: str, kernel: str, run: Run) -> dict[str, Any]:
    """Return what templates draw with; ``kernel`` is the name of what profiles are of, a kernel of ``run``."""
    return {
        "trajectory": lambda figure, width: Markup(draw_trajectory(figure, width)),
        "edits": lambda found, width: Markup(draw_edits(found, width)),
        "bars": lambda groups, width: Markup(draw_bars(groups, unit, width)),
        "timeline": lambda profile: _timeline(profile, kernel, run),
        "wide": WIDE,
        "narrow": NARROW,
    }


def _environment(**options: Any) -> Environment:
    environment = Environment(
        loader=PackageLoader("avo.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, **options,
    )  # fmt: skip
    environment.filters |= {
        "looked": looked, "counted": counted, "busiest": busiest, "critical": critical, "gained": gained,
        "cut": cut, "diff_class": _diff_class, "duration": duration, "first_line": first_line, "geomean": geomean,
        "highlighted": highlighted, "hot_section": _hot_section, "in_a_list": in_a_list, "kind_of": score_kind,
        "level": _level, "subject_of": subject,
        "briefly_measured": briefly_measured, "measured": measured, "minimal_kernel": minimal_kernel,
        "one": lambda value: f"{value:.1f}",
        "figure": figure, "speed_of": _speed_of, "width": width,
        "percent": percent, "resolved": resolved,
        "sentence": lambda words: words[:1].upper() + words[1:], "unresolved": unresolved,
    }  # fmt: skip
    return environment


def names_of(report: Charts, now: datetime) -> dict[str, Any]:
    """Return what templates about a run have as names."""
    best = report.view.best
    score = best.attempt.evaluation.score if best else None
    kind = score_kind(report.run.target)
    return {
        "report": report,
        "served": False,
        "now": now,
        "ending": ending(report.run, report.run.state_at(now)),
        "subject": subject(report.run),
        "of": report.view.unit,
        "release": installed("avo-kernels"),
        "place": place(score) if score else report.run.target,
        "unchecked": unchecked(report.run.target),
        "kind": kind,
        "spread_name": SPREAD[kind],
        "geomean": geomean,
        "limits": {
            "words": MOST_WORDS,
            "lines": data.MOST_DIFF_LINES,
            "diffs": data.MOST_DIFFS,
            "source": data.MOST_SOURCE,
            "reasons": data.MOST_REASONS,
            "ideas": data.MOST_IDEAS,
            "interventions": MOST_INTERVENTIONS,
            "directions": MOST_DIRECTIONS,
        },
    }


def _title(report: Report) -> str:
    """Return the kernel, the card and the models or the operator that made it: ``mha on H100 by mutate``."""
    score = report.view.best and report.view.best.attempt.evaluation.score
    where = place(score) if score else report.run.target
    by = ", ".join(use.model for use in report.models) or report.run.operator
    return f"{subject(report.run)} on {where.upper() if where in TARGETS else where} by {by}"


def _sections(report: Report, profiled: bool) -> list[tuple[str, str]]:
    """Return the anchor and the title of each section of the page."""
    found = []
    if report.versions:
        found += [("trajectory", "Trajectory"), ("cases", "Cases"), ("paid", "What paid"), ("lineage", "Lineage")]
    found += [("attempts", "Attempts"), ("cost", "Time and cost")]
    found += [("supervisor", "Supervisor")] * bool(report.interventions) + [("profile", "Profile")] * profiled
    return [*found, ("environment", "Environment")]


def _clean(value: object) -> object:
    """Remove control characters from what a template prints; escaping follows."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _plain(value: object) -> object:
    """Escape what Markdown, or HTML within it, would not take as plain text, and put it on one line."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    line = " ".join(printable(value).split()).replace("&", "&amp;").replace("<", "&lt;")
    return _MARKDOWN.sub(r"\\\1", line)


def _plot(trajectory: Trajectory) -> Markup:
    """Return the trajectory as an indented block. Markdown has no escapes in it: what might be markup is replaced."""
    lines = [*draw(trajectory, *PLOT).plain.splitlines(), legend(trajectory).plain]
    return Markup("\n").join(Markup(f"    {line}".rstrip().translate(_LOOKALIKES)) for line in lines)


def _digest(text: str) -> str:
    """Return the hash by which a content security policy names an inline text."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _timeline(profile: "Profile", kernel: str, run: Run) -> str:
    """Return a data URL with the drawing of a profile's timeline."""
    from avo.report.timeline import draw_timelines

    drawn = draw_timelines([profile], kernel, units_of(run.problem, run.suite, run.target))
    return f"data:image/svg+xml;base64,{b64encode(drawn.encode()).decode()}"


def _speed_of(profile: "Profile", run: Run) -> str:
    unit = units_of(run.problem, run.suite, run.target).get(profile.score.case, TFLOPS)
    return unit.said(profile.score.tflops, profile.kind)


def _hot_section(profile: "Profile") -> "Section | None":
    sections = [section for launch in profile.launches for section in launch.sections]
    return max(sections, key=lambda section: section.time_us, default=None)


def _level(shown: Trajectory, name: str) -> str:
    """Return a baseline's speed on the cases of a figure; empty if it does not cover them."""
    return next((figure(level.value) for level in shown.levels if level.name == name), "")


def _diff_class(line: str) -> str:
    style = {"+": "a", "-": "d", "@": "h"}.get(line[:1])
    return Markup(f' class="{style}"') if style else ""
