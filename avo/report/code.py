"""Sources as HTML, with the classes by which the style sheet colours them."""

from markupsafe import Markup, escape
from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String

from avo.watch.wording import printable

_CLASSES = (
    (Comment, "sc"),
    (String, "ss"),
    (Number, "sn"),
    (Keyword, "sk"),
    (Operator.Word, "sk"),
    (Name.Builtin, "sb"),
    (Name.Decorator, "sb"),
    (Name.Function, "sf"),
)
"""Kinds of tokens that are coloured, and their classes; the others are plain."""


def highlighted(source: str) -> Markup:
    """Return a Python source, printable and escaped; its text is unchanged by the colours."""
    parts = []
    for kind, text in PythonLexer(stripnl=False, ensurenl=False).get_tokens(printable(source)):
        style = next((style for known, style in _CLASSES if kind in known), "")
        parts.append(Markup('<span class="{}">{}</span>').format(style, text) if style else escape(text))
    return Markup("").join(parts)
