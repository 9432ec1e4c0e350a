"""Passages about the API of the installed Triton, one for each public definition, read from its files."""

import ast
import importlib.util
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from avo.knowledge_base.exports import Definition, Module, Package, Place
from avo.knowledge_base.note import Kind, Note

_ROOTS = (
    "triton.language",
    "triton",
    "triton.tools.tensor_descriptor",
    "triton.experimental.gluon.language",
    "triton.experimental.gluon",
    "triton.experimental.gluon.nvidia.hopper",
    "triton.experimental.gluon.nvidia.blackwell",
)
_LEFT_OUT = frozenset(
    {"amd", "hip", "rubin", "fpsan", "compiler", "runtime", "testing", "tools", "libdevice", "language"}
)
"""Modules that are left out: for other hardware, of no use in a kernel, or only parents. libdevice has one passage with
all names.
"""
_ARCHITECTURES = {"ampere": (80, 89, 120), "hopper": (90,), "blackwell": (100, 103)}
"""By the name of a module, the compute capabilities that have what it exports. 12.0 multiplies as 8.0 does."""
_HIDDEN = frozenset({"_semantic", "_generator", "_builder", "self"})
_MOST_LINES = 60
_SEMANTICS = (
    ("triton.language.semantic", "TritonSemantic"),
    ("triton.experimental.gluon.language._semantic", "GluonSemantic"),
)
_LIBDEVICE = "triton.language.extra.libdevice"


@cache
def installed_api() -> tuple[Note, ...]:
    """Return the passages of the Triton that an import would find (none: empty). The first call takes 0.3 s."""
    spec = importlib.util.find_spec("triton")
    folders = spec.submodule_search_locations if spec else None
    return read_api(Path(folders[0])) if folders else ()


def read_api(folder: Path) -> tuple[Note, ...]:
    """Return the passages of the Triton in ``folder``, by id: the shortest name that it can be imported by.

    The other names are its tags.
    """
    package = Package(folder, _LEFT_OUT)
    found: dict[Place, dict[str, None]] = {}
    for root in _ROOTS:
        for name, place in package.exports(root):
            found.setdefault(place, {})[name] = None
    notes = [
        _passage(package, place, sorted(names, key=lambda name: name.count("."))) for place, names in found.items()
    ]
    return tuple(sorted((*notes, *_libdevice(package)), key=lambda note: note.id))


def _passage(package: Package, place: Place, names: Sequence[str]) -> Note:
    """Return the passage of the definition at ``place``, which can be imported by ``names``."""
    module = package.module(place[0])
    assert module is not None
    node = module.definitions[place[1]]
    source = module.source(node, _MOST_LINES)
    parts = [
        ast.get_docstring(node) or "",
        _methods(node) if isinstance(node, ast.ClassDef) else "",
        _fenced(source),
        *_checks(package, source),
    ]
    return Note(
        id=names[0],
        title=names[0] + _signature(node),
        architectures=_architectures(names),
        problems=(),
        tags=tuple(names[1:]),
        source=_source(package, module, node.lineno),
        body="\n\n".join(part for part in parts if part),
        kind=Kind.API,
    )


def _architectures(names: Sequence[str]) -> tuple[int, ...]:
    """Return the names whose modules export the definition; empty if a module for all hardware does."""
    each = [{arch for part in name.split(".") for arch in _ARCHITECTURES.get(part, ())} for name in names]
    return tuple(sorted(set().union(*each))) if all(each) else ()


def _checks(package: Package, source: str) -> Iterator[str]:
    """Yield the source of the functions that a builtin calls to check its arguments and to write its IR."""
    called = dict.fromkeys(re.findall(r"\b_semantic\.(\w+)\(", source))
    for name, owner in _SEMANTICS:
        module = package.module(name)
        holder = module.definitions.get(owner) if module else None
        for node in holder.body if isinstance(holder, ast.ClassDef) else ():
            if module and isinstance(node, ast.FunctionDef) and node.name in called and node.name != "to_tensor":
                yield f"{owner}.{node.name}:\n\n{_fenced(module.source(node, _MOST_LINES))}"


def _libdevice(package: Package) -> list[Note]:
    module = package.module(_LIBDEVICE)
    if module is None:
        return []
    functions = ", ".join(name + _signature(node) for name, node in module.definitions.items())
    body = f"Functions of NVIDIA's libdevice, element by element:\n\n{functions}"
    source = _source(package, module, 1)
    return [Note(_LIBDEVICE, f"{_LIBDEVICE}: mathematical functions", (), (), (), source, body, Kind.API)]


def _source(package: Package, module: Module, line: int) -> str:
    top = package.module("triton")
    version = re.search(r"__version__ = '([^']+)'", top.text) if top else None
    return f"triton {version[1] if version else ''}, {module.path.relative_to(package.folder.parent)}:{line}"


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        made = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
        if made:
            return _signature(made[-1])
        fields = [ast.unparse(each) for each in node.body if isinstance(each, ast.AnnAssign)]
        return f"({', '.join(fields)})" if fields else ""
    arguments = node.args
    for group in (arguments.posonlyargs, arguments.args, arguments.kwonlyargs):
        defaults = arguments.kw_defaults if group is arguments.kwonlyargs else arguments.defaults
        for place in [place for place, each in enumerate(group) if each.arg in _HIDDEN][::-1]:
            from_end = len(group) - place
            if from_end <= len(defaults):
                defaults.pop(-from_end)
            group.pop(place)
    return f"({ast.unparse(arguments)})"


def _methods(node: ast.ClassDef) -> str:
    lines = []
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
            told = (ast.get_docstring(method) or "").split("\n\n")[0].replace("\n", " ")
            lines.append(f"- {method.name}{_signature(method)}" + (f": {told}" if told else ""))
    return "\n".join(lines)


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```"
