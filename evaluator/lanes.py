"""A timeline as lines of text: how busy each pipe is, and below what warps run or wait for."""

from collections.abc import Callable

from avo.evaluator.profile import RUNNING, Profile, Timeline

_LEVELS = " ▁▂▃▄▅▆▇█"
_CELLS = 2
"""Cells of a timeline that a character stands for."""


def drawn(profile: Profile) -> str:
    """Return the case of a profile and its timeline as text."""
    if profile.timeline is None:
        return f"{profile.score.case}: the judge has no play of the hot loop"
    heading, *lines = lanes(profile.timeline)
    return "\n".join([f"{profile.score.case}: {heading}", *lines])


def lanes(timeline: Timeline, clean: Callable[[str], str] = str) -> list[str]:
    """Return a heading, a line for each pipe and each group of warps, and what the letters mean.

    ``clean`` is for names, which may be of another's kernel.
    """
    width = max(map(len, [lane.name for lane in timeline.pipes] + [lane.name for lane in timeline.warps])) + 2
    lines = [f"{clean(timeline.name)}, one SM as played: {timeline.clocks:.0f} clocks"]
    for pipe in timeline.pipes:
        cells = [max(pipe.busy[at : at + _CELLS]) for at in range(0, len(pipe.busy), _CELLS)]
        curve = "".join(_LEVELS[round(busy * (len(_LEVELS) - 1))] for busy in cells)
        lines.append(f"{clean(pipe.name):<{width}}{curve}  {sum(pipe.busy) / len(pipe.busy):.0%}")
    letters = {state: "b" if state == "CTA barrier" else state[0] for lane in timeline.warps for state in lane.states}
    letters |= {RUNNING: "#"}
    for lane in timeline.warps:
        lines.append(f"{clean(lane.name):<{width}}{''.join(letters[state] for state in lane.states[::_CELLS])}")
    legend = (f"{letter} {state}" for state, letter in sorted(letters.items(), key=lambda item: item[1]))
    return [*lines, f"warps run or wait for: {', '.join(legend)}"]
