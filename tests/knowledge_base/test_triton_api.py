"""The API of the installed triton is read from its files, under the names that it can be imported by."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from avo.evaluator.target import TARGETS
from avo.knowledge_base.note import Kind, Note
from avo.knowledge_base.triton_api import _ARCHITECTURES, installed_api, read_api

FILES = {
    "__init__.py": """
__version__ = '4.2.0'
from .runtime import autotune
from . import language
__all__ = ["autotune", "language"]
""",
    "runtime/__init__.py": 'def autotune(configs, key=None):\n    """Tunes."""\n    return configs\n',
    "language/__init__.py": "from . import math\nfrom .core import dot, block\nfrom .standard import total\n",
    "language/math.py": "from . import core\n\ndef exp(x, _semantic=None):\n    return _semantic.exp(x)\n",
    "language/standard.py": "from . import core\ntotal = core.wrapped(core.summed)\n_hidden = core.wrapped(core.dot)\n",
    "language/core.py": """
from typing import overload

@overload
def dot(a): ...

@builtin
def dot(a, b, acc=None, _semantic=None, *, out_dtype=float32):
    \"\"\"
    Multiplies.

    :param a: left
    \"\"\"
    return _semantic.dot(a, b)

def summed(x): ...

class block:
    \"\"\"A block.\"\"\"
    def __init__(self, shape): ...
    def load(self, offsets, _semantic=None):
        \"\"\"Loads.

        More.
        \"\"\"
    def _private(self): ...
""",
    "language/semantic.py": """
class TritonSemantic:
    def dot(self, lhs, rhs):
        assert lhs.rank == rhs.rank, "ranks differ"
""",
}


def written(folder: Path, files: dict[str, str]) -> dict[str, Note]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return {note.id: note for note in read_api(folder)}


@pytest.fixture
def api(tmp_path: Path) -> dict[str, Note]:
    return written(tmp_path / "triton", FILES)


def test_what_is_exported_has_a_passage_under_its_shortest_name(api: dict[str, Note]) -> None:
    assert set(api) == {
        "triton.autotune",
        "triton.language.block",
        "triton.language.dot",
        "triton.language.math.exp",
        "triton.language.total",
    }
    assert all(note.kind is Kind.API for note in api.values())


def test_a_passage_has_signature_docstring_source_and_what_is_checked(api: dict[str, Note]) -> None:
    dot = api["triton.language.dot"]
    assert dot.title == "triton.language.dot(a, b, acc=None, *, out_dtype=float32)"
    assert dot.body.startswith("Multiplies.\n\n:param a: left\n\n```python\n@builtin\ndef dot(")
    assert dot.body.count("Multiplies") == 1
    assert "TritonSemantic.dot:" in dot.body
    assert '"ranks differ"' in dot.body
    assert dot.source == "triton 4.2.0, triton/language/core.py:8"


def test_a_class_lists_its_public_methods(api: dict[str, Note]) -> None:
    block = api["triton.language.block"]
    assert block.title == "triton.language.block(shape)"
    assert "- load(offsets): Loads.\n" in block.body
    assert "- _private" not in block.body


def test_long_sources_are_cut(tmp_path: Path) -> None:
    long = "def dot(a):\n" + "".join(f"    a = a + {i}\n" for i in range(500))
    api = written(tmp_path / "triton", {**FILES, "language/core.py": long})
    assert len(api["triton.language.dot"].body.splitlines()) < 80
    assert "lines more" in api["triton.language.dot"].body


def test_files_that_are_missing_strange_or_import_each_other_are_skipped(tmp_path: Path) -> None:
    files = {
        **FILES,
        "language/math.py": "def exp(x:\n",
        "language/__init__.py": "from . import math, a\nfrom .core import dot, nothing\nfrom .gone import away\n",
        "language/a/__init__.py": "from ..b import x\nfrom .. import a\n",
        "language/b.py": "from .a import x\n",
    }
    api = written(tmp_path / "triton", files)
    assert set(api) == {"triton.autotune", "triton.language.dot"}
    assert written(tmp_path / "empty", {"README": ""}) == {}


def named(path: str) -> Any:
    """Return what Python calls ``path``, importing modules as far as there are some."""
    first, *rest = path.split(".")
    found, name = importlib.import_module(first), first
    for part in rest:
        name = f"{name}.{part}"
        found = getattr(found, part, None) or importlib.import_module(name)
    return found


def test_every_name_of_the_installed_api_is_one_that_python_knows() -> None:
    api = installed_api()
    assert len(api) > 200
    assert len({note.id for note in api}) == len(api)
    for note in api:
        assert all(named(name) is not None for name in (note.id, *note.tags))


def test_what_a_module_for_all_exports_is_about_no_architecture(tmp_path: Path) -> None:
    files = {
        **FILES,
        "language/__init__.py": "from . import hopper\nfrom .core import dot\n",
        "language/hopper/__init__.py": "from ..core import dot, summed\n",
    }
    api = written(tmp_path / "triton", files)
    assert api["triton.language.dot"].architectures == ()
    assert api["triton.language.dot"].tags == ("triton.language.hopper.dot",)
    assert api["triton.language.hopper.summed"].architectures == (90,)


def test_architectures_are_those_whose_modules_export_it() -> None:
    architectures = {note.id.rpartition(".")[2]: note.architectures for note in installed_api()}
    assert architectures["warpgroup_mma"] == (90,)
    assert architectures["tcgen05_mma"] == (100, 103)
    assert architectures["fence_async_shared"] == (90, 100, 103)
    assert architectures["dot"] == ()


def test_every_architecture_that_is_a_target_has_modules() -> None:
    assert {arch for found in _ARCHITECTURES.values() for arch in found} == {each.arch for each in TARGETS.values()}


def test_the_installed_api_has_what_kernels_are_written_with() -> None:
    api = {note.id: note for note in installed_api()}
    assert "Input shapes should have" in api["triton.language.dot"].body
    assert "warp_specialize" in api["triton.language.range"].body
    assert "prune_configs_by" in api["triton.autotune"].body
    assert "16-byte aligned" in api["triton.language.make_tensor_descriptor"].body
    assert "rsqrt" in api["triton.language.extra.libdevice"].body
