"""What a Python package exports and where it is defined, read from its files without importing it.

A module exports what it defines, or its ``__all__``; a package's ``__init__`` without ``__all__`` also exports what it
imports from within the package.
"""

import ast
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

Definition = ast.FunctionDef | ast.ClassDef
Place = tuple[str, str]
"""A module and a name there; ``""`` for the module itself."""


@dataclass
class Module:
    """The definitions, imports and exports of one file."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @cached_property
    def definitions(self) -> Mapping[str, Definition]:
        """Functions and classes by name; overloads are skipped."""
        return {
            node.name: node
            for node in self.tree.body
            if isinstance(node, Definition) and not any("overload" in ast.unparse(d) for d in node.decorator_list)
        }

    @cached_property
    def imported(self) -> Mapping[str, Place]:
        """For each imported name, the module and name within the package that it stands for."""
        top = self.name.split(".")[0]
        package = self.name if self._is_package else self.name.rpartition(".")[0]
        found = {}
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parents = package.split(".")
                    base = ".".join((*parents[: len(parents) - node.level + 1], *([base] if base else [])))
                if base.split(".")[0] == top:
                    found.update({alias.asname or alias.name: (base, alias.name) for alias in node.names})
            elif isinstance(node, ast.Import):
                found.update({a.asname: (a.name, "") for a in node.names if a.asname and a.name.startswith(f"{top}.")})
        return found

    @cached_property
    def renamed(self) -> Mapping[str, ast.expr]:
        """For each name made from another definition, that definition: ``sum = wrapped(standard.sum)``."""
        return {
            node.targets[0].id: node.value.args[0] if isinstance(node.value, ast.Call) else node.value
            for node in self.tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and (isinstance(node.value, ast.Attribute) or (isinstance(node.value, ast.Call) and node.value.args))
        }

    @cached_property
    def public(self) -> list[str]:
        """Names that the module exports."""
        listed = [
            item.value
            for node in self.tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            for item in ast.walk(node.value)
            if isinstance(item, ast.Constant) and isinstance(item.value, str)
        ]
        imported = self.imported if self._is_package and not listed else ()
        return [name for name in dict.fromkeys((*listed, *self.definitions, *imported)) if not name.startswith("_")]

    def source(self, node: Definition, most: int) -> str:
        """Return the source of a definition without its docstring, cut after ``most`` lines."""
        start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        lines = self.text.splitlines()[start - 1 : node.end_lineno]
        if ast.get_docstring(node) is not None:
            docstring = node.body[0]
            del lines[docstring.lineno - start : (docstring.end_lineno or docstring.lineno) - start + 1]
        indent = len(lines[0]) - len(lines[0].lstrip())
        kept = [line[indent:] if not line[:indent].strip() else line for line in lines[:most]]
        return "\n".join([*kept, f"# ... and {len(lines) - most} lines more"] if len(lines) > most else kept)

    @property
    def _is_package(self) -> bool:
        return self.path.name == "__init__.py"


@dataclass
class Package:
    """Follows names through the files below ``folder``, which is named as the package is."""

    folder: Path
    left_out: Set[str] = frozenset()
    """Names of modules that are not followed."""
    _modules: dict[str, Module | None] = field(default_factory=dict)
    _places: dict[Place, Place | None] = field(default_factory=dict)

    def module(self, name: str) -> Module | None:
        """Return a module by its dotted name; None if there is none, or if it is not Python."""
        if name not in self._modules:
            path = self.folder.joinpath(*name.split(".")[1:])
            files = (file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file())
            file = next(files, None)
            self._modules[name] = None if file is None else _read(name, file)
        return self._modules[name]

    def exports(self, name: str, within: tuple[str, ...] = ()) -> Iterator[tuple[str, Place]]:
        """Yield the public name and the place of each definition that the module ``name`` and those in it export."""
        module = self.module(name)
        for public in module.public if module else ():
            place = self._place(name, public)
            if place is None:
                continue
            if place[1]:
                yield f"{name}.{public}", place
            elif public not in self.left_out and place[0] not in within:
                for inner, found in self.exports(place[0], (*within, name)):
                    yield f"{name}.{public}{inner.removeprefix(place[0])}", found

    def _place(self, name: str, public: str) -> Place | None:
        """Return where the name ``public`` of the module ``name`` is defined."""
        if (name, public) not in self._places:
            self._places[name, public] = None  # what modules import from each other is nowhere
            self._places[name, public] = self._find(name, public)
        return self._places[name, public]

    def _find(self, name: str, public: str) -> Place | None:
        module = self.module(name)
        if module and public in module.definitions:
            return name, public
        if module and public in module.imported:
            source, there = module.imported[public]
            found = self._place(source, there) if there and source != name else None
            return found or self._submodule(source, there)
        if module and public in module.renamed:
            return self._attribute(module, module.renamed[public])
        return self._submodule(name, public)

    def _submodule(self, name: str, inner: str) -> Place | None:
        path = f"{name}.{inner}" if inner else name
        return (path, "") if self.module(path) else None

    def _attribute(self, module: Module, value: ast.expr) -> Place | None:
        if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
            holder = self._place(module.name, value.value.id)
            return self._place(holder[0], value.attr) if holder and not holder[1] else None
        return None


def _read(name: str, file: Path) -> Module | None:
    try:
        text = file.read_text(encoding="utf-8")
        return Module(name, file, text, ast.parse(text))
    except (OSError, ValueError, SyntaxError):
        return None
