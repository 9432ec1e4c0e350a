"""Passages about the API of the installed triton, read from its files: nothing of it is imported.

What a module exports is what it defines and its ``__all__``; in a package's ``__init__`` without one, also what it
imports from within triton. One passage for each definition; the other names it can be imported by are its tags.
"""

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from knowledge_base.note import Kind, Note

_ROOTS = (
    "triton.language",
    "triton",
    "triton.tools.tensor_descriptor",
    "triton.experimental.gluon.language",
    "triton.experimental.gluon",
    "triton.experimental.gluon.nvidia.hopper",
    "triton.experimental.gluon.nvidia.blackwell",
)
_LEFT_OUT = frozenset({"amd", "hip", "rubin", "fpsan", "compiler", "runtime", "testing", "tools", "libdevice"})
"""Modules for other machines, or of no use to a kernel. Of libdevice there is one passage, with all names."""
_ARCHITECTURES = {"ampere": 80, "hopper": 90, "blackwell": 100}
_HIDDEN = frozenset({"_semantic", "_generator", "_builder", "self"})
_SOURCE_LINES = 60
_CHECKS_LINES = 60
_SEMANTICS = (
    ("triton.language.semantic", "TritonSemantic"),
    ("triton.experimental.gluon.language._semantic", "GluonSemantic"),
)

Definition = ast.FunctionDef | ast.ClassDef


@cache
def installed_api() -> tuple[Note, ...]:
    """Return the passages of the triton that an import would find; none where there is none. Takes 0.3 s, once."""
    spec = importlib.util.find_spec("triton")
    folders = spec.submodule_search_locations if spec else None
    return read_api(Path(folders[0])) if folders else ()


def read_api(package: Path) -> tuple[Note, ...]:
    """Return a passage for each public definition of the triton in the folder ``package``, by id."""
    reader = _Reader(package)
    found: dict[tuple[str, str], list[str]] = {}
    for root in _ROOTS:
        for name, place in reader.exports(root):
            names = found.setdefault(place, [])
            names += [name] if name not in names else []
    notes = [reader.note(place, sorted(names, key=lambda name: name.count("."))) for place, names in found.items()]
    return tuple(sorted((*notes, *reader.libdevice()), key=lambda note: note.id))


@dataclass
class _Module:
    """One file of triton."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def package(self) -> str:
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    @cached_property
    def definitions(self) -> Mapping[str, Definition]:
        """Of several with one name, overloads are passed over."""
        return {
            node.name: node
            for node in self.tree.body
            if isinstance(node, Definition) and not any("overload" in ast.unparse(d) for d in node.decorator_list)
        }

    @cached_property
    def imported(self) -> Mapping[str, tuple[str, str]]:
        """What is imported by name from within triton: module and name there, "" for a module."""
        found = {}
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parents = self.package.split(".")
                    base = ".".join((*parents[: len(parents) - node.level + 1], *([base] if base else [])))
                if base.split(".")[0] == "triton":
                    found.update({alias.asname or alias.name: (base, alias.name) for alias in node.names})
            elif isinstance(node, ast.Import):
                found.update({a.asname: (a.name, "") for a in node.names if a.asname and a.name.startswith("triton.")})
        return found

    @cached_property
    def renamed(self) -> Mapping[str, ast.expr]:
        """What is made of another definition: ``sum = wrapped(standard.sum)``."""
        return {
            node.targets[0].id: node.value.args[0] if isinstance(node.value, ast.Call) else node.value
            for node in self.tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and (isinstance(node.value, ast.Attribute) or (isinstance(node.value, ast.Call) and node.value.args))
        }

    @cached_property
    def public(self) -> list[str]:
        listed = [
            item.value
            for node in self.tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            for item in ast.walk(node.value)
            if isinstance(item, ast.Constant)
        ]
        imported = self.imported if self.path.name == "__init__.py" and not listed else ()
        return [name for name in dict.fromkeys((*listed, *self.definitions, *imported)) if name[0] != "_"]

    def lines(self, node: ast.stmt, most: int) -> str:
        """Return the source of a definition without its docstring, cut after ``most`` lines."""
        assert isinstance(node, Definition)
        start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        lines = self.text.splitlines()
        body = lines[start - 1 : node.end_lineno]
        if ast.get_docstring(node) is not None:
            first = node.body[0]
            assert first.end_lineno is not None
            del body[first.lineno - start : first.end_lineno - start + 1]
        rest = len(body) - most
        indent = len(body[0]) - len(body[0].lstrip())
        kept = [line[indent:] if not line[:indent].strip() else line for line in body[:most]]
        return "\n".join([*kept, f"# ... and {rest} lines more"] if rest > 0 else kept)


@dataclass
class _Reader:
    """Follows names through the files of one triton."""

    folder: Path
    modules: dict[str, _Module | None] = field(default_factory=dict)

    def module(self, name: str) -> _Module | None:
        """Return the module called ``triton...``, None where there is none that is Python."""
        if name not in self.modules:
            path = self.folder.joinpath(*name.split(".")[1:])
            files = (file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file())
            file = next(files, None)
            self.modules[name] = None if file is None else _Module(name, file)
        return self.modules[name]

    def exports(self, name: str) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield public name and place (module, name there) of each definition that a module exports."""
        module = self.module(name)
        for public in module.public if module else ():
            place = self.place(name, public)
            if place is None or (place[1] == "" and public in _LEFT_OUT):
                continue
            if place[1]:
                yield f"{name}.{public}", place
            elif name != "triton":
                for inner, found in self.exports(place[0]):
                    yield f"{name}.{public}{inner.removeprefix(place[0])}", found

    def place(self, name: str, public: str) -> tuple[str, str] | None:
        """Return where ``public`` of the module ``name`` is defined; a module's place has no name there."""
        module = self.module(name)
        if module and public in module.definitions:
            return name, public
        if module and public in module.imported:
            source, there = module.imported[public]
            found = self.place(source, there) if there and source != name else None
            inner = f"{source}.{there}" if there else source
            return found or ((inner, "") if self.module(inner) else None)
        if module and public in module.renamed:
            return self._attribute(module, module.renamed[public])
        return (f"{name}.{public}", "") if self.module(f"{name}.{public}") else None

    def _attribute(self, module: _Module, value: ast.expr) -> tuple[str, str] | None:
        if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
            holder = self.place(module.name, value.value.id)
            return self.place(holder[0], value.attr) if holder and not holder[1] else None
        return None

    @cached_property
    def version(self) -> str:
        found = re.search(r"__version__ = '([^']+)'", (self.folder / "__init__.py").read_text(encoding="utf-8"))
        return found[1] if found else "of unknown version"

    def note(self, place: tuple[str, str], names: list[str]) -> Note:
        """Return the passage of the definition at ``place``, which can be imported by ``names``."""
        module = self.module(place[0])
        assert module is not None
        node = module.definitions[place[1]]
        parts = [ast.get_docstring(node) or ""]
        if isinstance(node, ast.ClassDef):
            parts += [_methods(node)]
        source = module.lines(node, _SOURCE_LINES)
        parts += [_fenced(source), *self._checks(source)]
        within = [[part for part in name.split(".") if part in _ARCHITECTURES] for name in names]
        return Note(
            id=names[0],
            title=names[0] + _signature(node),
            architectures=tuple(sorted({_ARCHITECTURES[part] for parts in within for part in parts}))
            if all(within)
            else (),
            problems=(),
            tags=tuple(names[1:]),
            source=self._source(module, node.lineno),
            body="\n\n".join(part for part in parts if part),
            kind=Kind.API,
        )

    def libdevice(self) -> list[Note]:
        """Return one passage that lists the functions of libdevice."""
        name = "triton.language.extra.libdevice"
        module = self.module(name)
        if module is None:
            return []
        functions = ", ".join(public + _signature(module.definitions[public]) for public in module.definitions)
        body = f"Functions of NVIDIA's libdevice, element by element, of float32 and float64:\n\n{functions}"
        return [Note(name, f"{name}: mathematical functions", (), (), (), self._source(module, 1), body, Kind.API)]

    def _source(self, module: _Module, line: int) -> str:
        return f"triton {self.version}, {module.path.relative_to(self.folder.parent)}:{line}"

    def _checks(self, source: str) -> Iterator[str]:
        """Yield the source of what a builtin calls to check its arguments and to write its IR."""
        for called in dict.fromkeys(re.findall(r"\b_semantic\.(\w+)\(", source)):
            for name, owner in _SEMANTICS:
                module = self.module(name)
                holder = module.definitions.get(owner) if module else None
                for node in holder.body if isinstance(holder, ast.ClassDef) else ():
                    if module and isinstance(node, ast.FunctionDef) and node.name == called != "to_tensor":
                        yield f"{owner}.{called}:\n\n{_fenced(module.lines(node, _CHECKS_LINES))}"


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        made = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if made:
            return _signature(made[-1])
        fields = [ast.unparse(n) for n in node.body if isinstance(n, ast.AnnAssign)]
        return f"({', '.join(fields)})" if fields else ""
    arguments = node.args
    for group in (arguments.posonlyargs, arguments.args, arguments.kwonlyargs):
        defaults = arguments.kw_defaults if group is arguments.kwonlyargs else arguments.defaults
        for i in [i for i, each in enumerate(group) if each.arg in _HIDDEN][::-1]:
            from_end = i - len(group)
            if -from_end <= len(defaults):
                defaults.pop(from_end)
            group.pop(i)
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
