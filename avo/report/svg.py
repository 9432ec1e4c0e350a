"""Drawing: SVG elements and the text in them. Text is escaped when the SVG is written out."""

import re
from collections.abc import Sequence
from xml.etree.ElementTree import Element, tostring

from avo.watch.wording import printable

GLYPH = 0.58
"""Width of a character relative to its font size, estimated generously for the digits and words of a figure."""


_ALONE = (
    "text{font:12px sans-serif;fill:#1b1f24}.quiet{fill:#57606a}.grid{stroke:#d8dee4}"
    ".zero,.whisker{stroke:#1b1f24;fill:none}.best{fill:#00664b}.seed{fill:#9aa4af}"
)
"""Style of bars outside a page: colours of ``style.css.j2``."""


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


def alone(drawn: str) -> str:
    """Return a picture as a file of its own, in the light colours of a report's page."""
    head, rest = drawn.split(">", 1)
    width, height = re.findall(r'viewBox="0 0 (\S+) (\S+)"', head)[0]
    return (
        f'{head} xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"><style>{_ALONE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{rest}\n'
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
