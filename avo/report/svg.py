"""Drawing: SVG elements, axes and labels that do not overlap. Text is escaped when the SVG is written out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, tostring

from avo.watch.wording import printable

GLYPH = 0.58
"""Width of a character relative to its font size, estimated generously for the digits and words of a figure."""


def node(tag: str, *inside: Element | str, **attributes: object) -> Element:
    """Return an element. ``stroke_width`` is the attribute ``stroke-width``, ``class_`` is ``class``.

    Numbers are rounded to a tenth of a pixel; text loses its control characters.
    """
    made = Element(tag, {name.rstrip("_").replace("_", "-"): _value(value) for name, value in attributes.items()})
    for part in inside:
        if isinstance(part, Element):
            made.append(part)
        else:
            made.text = printable(part)
    return made


def picture(name: str, width: float, height: float, title: str, description: str, parts: Sequence[Element]) -> str:
    """Return an SVG for use within HTML. ``name`` is unique on the page, ``description`` says what can be seen."""
    ids = f"{name}-title", f"{name}-desc"
    return tostring(
        node(
            "svg",
            node("title", title, id=ids[0]),
            node("desc", description, id=ids[1]),
            *parts,
            viewBox=f"0 0 {width:g} {height:g}",
            role="img",
            aria_labelledby=" ".join(ids),
        ),
        encoding="unicode",
    )


def text(words: str, x: float, y: float, **attributes: object) -> Element:
    """Return a text element whose baseline begins at (x, y)."""
    return node("text", words, x=x, y=y, **attributes)


def text_width(words: str, size: float) -> float:
    """Return the estimated width in pixels of ``words`` in a font of ``size`` pixels."""
    return GLYPH * size * len(words)


def shorten(words: str, width: float, size: float) -> str:
    """Return ``words`` on one line, cut if they are wider than ``width`` pixels."""
    words = " ".join(printable(words).split())
    most = max(1, int(width / (GLYPH * size)))
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from values to pixels."""

    low: float
    high: float
    start: float
    """The pixel at which ``low`` is drawn."""
    stop: float

    def __call__(self, value: float) -> float:
        """Return the pixel at which ``value`` is drawn."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers at equal distances of 1, 2 or 5 times a power of ten: at least two, at most ``most`` + 2.

    The first is at or below ``low``, the last at or above ``high``. A span of less than a hundredth of ``high`` is
    widened.
    """
    span = high - low
    if span < 0.01 * abs(high) or not span:
        span = 0.1 * abs(high) or 1.0
    exponent = math.floor(math.log10(span / most))
    steps = (factor * 10.0**power for power in (exponent, exponent + 1) for factor in (1, 2, 5))
    step = next(step for step in steps if span / step <= most)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [_round(count * step, step) for count in range(first, max(last, first + 1) + 1)]


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions for labels in ascending order, like ``wanted``, each as close as possible to where it is wanted.

    They are at least ``gap`` apart and lie between ``low`` and ``high``. There must be room: ``(len(wanted) - 1) * gap
    <= high - low``.
    """
    places: list[float] = []
    for place in wanted:
        places.append(max(place, low, places[-1] + gap if places else low))
    limit = high
    for index in reversed(range(len(places))):
        places[index] = min(places[index], limit)
        limit = places[index] - gap
    return places


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return printable(str(value))


def _round(value: float, step: float) -> float:
    return round(value, max(0, 1 - math.floor(math.log10(step))))
