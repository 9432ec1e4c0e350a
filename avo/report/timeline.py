"""The timeline of a profile as an SVG: what pipes and warps did during two passes of the hot loop."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby

from avo.evaluator.profile import RUNNING, PipeLane, Profile, Timeline, WarpLane
from avo.evaluator.units import TFLOPS, Unit

LEFT, WIDTH, RIGHT = 190, 780, 60
"""Widths in pixels of the names, of the plot, and of the figures to its right."""
LANE, GAP = 20, 5
COLOURS = {
    RUNNING: "#009e73",
    "matrix product": "#0072b2",
    "pipe": "#56b4e9",
    "scoreboard": "#e69f00",
    "copies": "#cc79a7",
    "CTA barrier": "#d55e00",
    "issue slot": "#f0e442",
    "other role": "#bbbbbb",
}
"""Colours by what a warp does or waits for: those of Okabe and Ito, which colour-blind readers can tell apart."""
_STYLE = "text{font:12px sans-serif;fill:#222}.head{font-weight:bold;font-size:14px}.small{font-size:10px;fill:#666}"


def draw_timelines(profiles: Sequence[Profile], kernel: str, units: Mapping[str, Unit]) -> str:
    """Return one picture with the timelines of all profiles, one below the other; ``units`` are those of the cases."""
    body: list[str] = []
    top = 0
    for profile in profiles:
        if profile.timeline:
            score = profile.score
            speed = units.get(score.case, TFLOPS).said(score.tflops, profile.kind)
            title = f"{kernel}, {score.case} on {profile.target}: {speed}"
            drawn, height = _draw(profile.timeline, f"{title}; {profile.timeline.name}, one SM as played")
            body.append(f'<g transform="translate(0,{top})">{drawn}</g>')
            top += height
    width = LEFT + WIDTH + RIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" role="img">'
        f'<style>{_STYLE}</style><rect width="{width}" height="{top}" fill="#fff"/>{"".join(body)}</svg>\n'
    )


def _draw(timeline: Timeline, title: str) -> tuple[str, int]:
    """Return the drawing of one timeline and its height in pixels."""
    parts = [_text(10, 22, title, "head")]
    top = 36
    for pipe in timeline.pipes:
        parts += [_text(10, top + 15, f"{pipe.name} busy"), _area(pipe, top)]
        parts.append(_text(LEFT + WIDTH + 8, top + 15, f"{sum(pipe.busy) / len(pipe.busy):.0%}"))
        top += LANE + GAP
    for lane in timeline.warps:
        parts += [_text(10, top + 15, lane.name), *_runs(lane, top)]
        top += LANE + GAP
    parts += _axis(timeline, top)
    top += 30
    used = {state for lane in timeline.warps for state in lane.states}
    x = LEFT
    parts.append(_text(10, top + 9, "warps run, or wait for:", "small"))
    for state, colour in ((state, colour) for state, colour in COLOURS.items() if state in used):
        parts.append(f'<rect x="{x}" y="{top}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(x + 14, top + 9, state, "small"))
        x += 28 + 6 * len(state)
    return "".join(parts), top + 30


def _text(x: float, y: float, words: str, style: str = "") -> str:
    printable = "".join(char if char.isprintable() else " " for char in words)
    return f'<text x="{x:g}" y="{y:g}"{f" class={style!r}" if style else ""}>{escape(printable)}</text>'


def _area(lane: PipeLane, top: float) -> str:
    """Return a pipe's utilisation as a filled step curve."""
    cell = WIDTH / len(lane.busy)
    points = [(float(LEFT), top + LANE)]
    for place, busy in enumerate(lane.busy):
        y = top + LANE * (1 - busy)
        points += [(LEFT + place * cell, y), (LEFT + (place + 1) * cell, y)]
    points.append((LEFT + WIDTH, top + LANE))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    frame = f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{LANE}" fill="#f3f3f3"/>'
    return f'{frame}<polygon points="{path}" fill="#4a6fa5"/>'


def _runs(lane: WarpLane, top: float) -> Iterator[str]:
    """Yield a box for each stretch of equal states."""
    cell = WIDTH / len(lane.states)
    place = 0
    for state, run in groupby(lane.states):
        length = len(list(run))
        yield (
            f'<rect x="{LEFT + place * cell:.1f}" y="{top}" width="{length * cell:.1f}" height="{LANE}" '
            f'fill="{COLOURS.get(state, "#888")}"><title>{escape(state)}</title></rect>'
        )
        place += length


def _axis(timeline: Timeline, top: float) -> Iterator[str]:
    """Yield the scale in clocks below the lanes, and a line where each pass begins."""
    for tick in range(5):
        unit = " clocks" if tick == 4 else ""
        yield _text(LEFT + WIDTH * tick / 4, top + 12, f"{timeline.clocks * tick / 4:.0f}{unit}", "small")
    for begun in timeline.passes:
        x = LEFT + WIDTH * begun / timeline.clocks
        yield f'<path d="M{x:.1f} 32V{top}" stroke="#222" stroke-dasharray="4 3" fill="none"/>'
