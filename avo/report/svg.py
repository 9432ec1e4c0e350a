"""Drawing: SVG elements and the text in them. Text is escaped when the SVG is written out."""

from collections.abc import Sequence
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


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return printable(str(value))
