"""The figure of a comparison: how fast the best version of each run was after the same cost."""

from collections.abc import Sequence

from avo.evaluator.units import Unit
from avo.evaluator.units import figure as digits
from avo.report.figures import COLOURS, FONT, WIDE, band, end_labels, steps, vertical_axis
from avo.report.svg import node, picture, shorten, text, text_width
from avo.watch.axes import Scale, base, ticks
from avo.watch.comparison import Course


def draw_courses(courses: Sequence[Course], cost: str, of: Unit, width: int) -> str:
    """Return the best of each run over what it had spent of ``cost`` as an SVG of ``width`` pixels.

    A line begins where the run had its seed and ends where the run did; a band around it is what the score cannot tell
    apart from it. Some run must have spent some.
    """
    height = 320.0
    top, bottom = 14.0, height - 40.0
    lines, bands = [], []
    for course in courses:
        at = [
            (getattr(each.spent, cost), of.value(each.tflops), 1 + (each.resolution or 0.0)) for each in course.advances
        ]
        lines.append([(spent, value) for spent, value, _ in at])
        bands.append([[(spent, value * widened**sign) for spent, value, widened in at] for sign in (-1, 1)])
    speeds = [value for line in lines for _, value in line]
    marks = ticks(base(speeds), max(speeds), 6)
    labels = [
        (shorten(f"{digits(line[-1][1])} {course.run}", 0.36 * width, FONT), line[-1][1], f"c{number % COLOURS}")
        for number, (line, course) in enumerate(zip(lines, courses, strict=True))
    ]
    left = max(text_width(f"{mark:g}", FONT) for mark in marks) + 14.0
    right = width - 10.0 - max(text_width(words, FONT) for words, _, _ in labels)
    y = Scale(marks[0], marks[-1], bottom, top)
    x = Scale(0, max(getattr(course.spent, cost) for course in courses), left + 2, right - 2)
    parts = list(vertical_axis(marks, y, left, right))
    for mark in ticks(0, x.high, 6 if width >= WIDE else 3):
        if mark <= x.high:
            parts.append(text(f"{mark:,.10g}", x(mark), bottom + 17, class_="quiet", text_anchor="middle"))
    parts.append(text(cost, (x.start + x.stop) / 2, bottom + 34, class_="quiet", text_anchor="middle"))
    for number, (course, line, edges) in enumerate(zip(courses, lines, bands, strict=True)):
        colour, end = f"c{number % COLOURS}", x(getattr(course.spent, cost))
        if any(each.resolution for each in course.advances):
            parts.append(node("path", d=band(edges, x, y, end), class_=f"band {colour}"))
        parts.append(node("path", d=steps(line, x, y, end), class_=f"course {colour}"))
    parts += end_labels(sorted(labels, key=lambda label: -label[1]), y, right, top, bottom)
    told = "; ".join(
        f"{course.run}: from {digits(line[0][1])} to {digits(line[-1][1])}"
        for course, line in zip(courses, lines, strict=True)
    )
    return picture(f"courses-{cost}-{width}", width, height, f"Best {of.name} of each run, over {cost}", told, parts)
